"""The mutants of repeatable answers."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_AS_OF = "src/k2/query/as_of.py"
_SIMULATION = (
    "tests/simulation/test_repeatable_answers.py::"
    "test_a_token_gives_its_rows_again_or_is_refused_where_retention_took_some"
)
_TAGS = "tests/unit/storage/test_named_snapshots.py"

REPEATABLE = (
    Mutant(
        "token-forgets-drops",
        "a token is answered short, in silence, where retention has dropped days of it",
        (Edit(_AS_OF, "return seen < dropped.commit_sequence", "return False"),),
        (_SIMULATION,),
    ),
    Mutant(
        "token-from-too-old",
        "a token is answered from a snapshot that is older than itself",
        (Edit(_AS_OF, "seam.commit_sequence in before", "seam.commit_sequence < before.start"),),
        (_SIMULATION,),
    ),
    Mutant(
        "tag-not-kept",
        "an expiry takes snapshots that a tag keeps",
        (
            Edit(
                "src/k2/storage/expiry.py",
                "            and snapshot.snapshot_id not in protected\n",
                "",
            ),
        ),
        (_SIMULATION, f"{_TAGS}::test_a_tagged_snapshot_outlives_expiry_with_its_seam_and_files"),
    ),
)
