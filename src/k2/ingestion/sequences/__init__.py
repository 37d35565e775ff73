"""Numbers that venues give: what is missing, late, doubled or numbered anew, and the ledger of gaps."""
