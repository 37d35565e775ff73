"""Settings of the REST API: address, key, and the limits on what one caller can ask."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads the annotation at run time

from pydantic import BaseModel, ConfigDict, Field


class ApiSettings(BaseModel):
    """The REST API: address, key and the limits on what one caller can ask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to bind to; loopback unless changed")
    port: int = Field(default=8000, ge=1, le=65535, description="Port to bind to")
    key_file: Path | None = Field(
        default=None, description="File that holds the API key; `<data dir>/api-key` if unset"
    )
    rows_default: int = Field(default=10_000, gt=0, description="Rows of a page when the caller gives no limit")
    rows_max: int = Field(default=1_000_000, gt=0, description="Most rows of one page")
    concurrency_min: int = Field(
        default=2, gt=0, le=256, description="Questions answered at the same time, however slow they are"
    )
    concurrency_max: int = Field(
        default=8, gt=0, le=256, description="Most questions answered at the same time; how many do well is measured"
    )
    concurrency_window_seconds: float = Field(
        default=1.0, gt=0, description="How often the number of questions at the same time is decided anew, seconds"
    )
    latency_tolerance_ratio: float = Field(
        default=1.5, ge=1, description="Time of an answer, of that without load, from which fewer run at the same time"
    )
    unloaded_seconds: float = Field(
        default=60.0,
        gt=0,
        description="After how long without a measurement of answers without load one is made, with the least at once",
    )
    light_window_minutes: float = Field(
        default=60.0,
        gt=0,
        description="Range up to which a question is light: it goes before the others, and is answered at every level",
    )
    light_read_rows_max: int = Field(
        default=200_000,
        ge=0,
        description="Rows that are to be read up to which a question for symbols or gaps is light: of symbols those in "
        "files that nobody has counted yet, of gaps all events",
    )
    queue_max: int = Field(default=32, ge=0, description="Questions that wait for their turn; more are refused (503)")
    queue_seconds_max: float = Field(default=5.0, gt=0, description="Longest wait of a question for its turn, seconds")
    sending_bytes_max: int = Field(
        default=512 * 1024 * 1024,
        gt=0,
        description="Memory of answers being sent, bytes; at half of it heavy questions wait, at all of it every one",
    )
    key_questions_per_second: float = Field(
        default=500.0, gt=0, description="Questions a second of one API key; more are refused (429)"
    )
    key_burst_questions: int = Field(
        default=1000, gt=0, description="Questions that one API key may ask at once after a pause"
    )
    key_questions_at_once_max: int = Field(
        default=32, gt=0, description="Questions of one API key under way, waiting and sending included (429)"
    )
    light_queue_seconds_max: float = Field(
        default=2.0, gt=0, description="Longest wait of a light question for its turn, seconds: it asks for what is new"
    )
    query_seconds_max: float = Field(default=30.0, gt=0, description="Longest run of one question, seconds")
    retry_after_seconds: float = Field(default=1.0, gt=0, description="Pause that a refusal (503) asks for, seconds")
    circuit_break_retry_seconds: float = Field(
        default=10.0, gt=0, description="Pause that a refusal at CIRCUIT_BREAK (503) asks for, seconds"
    )
    url_bytes_max: int = Field(default=8192, gt=0, description="Longest URL with its query, bytes")
    header_bytes_max: int = Field(default=16_384, gt=0, description="All headers of a request together, bytes")
    body_bytes_max: int = Field(default=65_536, ge=0, description="Longest body of a request, bytes")
    certificate_header_bytes_max: int = Field(
        default=6144, ge=256, description="Longest K2-Certificate header, bytes; a longer one leaves parts out"
    )
    connections_max: int = Field(
        default=256,
        gt=0,
        description="Connections at the same time; beyond them idle ones are closed, or questions refused",
    )
    connections_spare: int = Field(
        default=16, ge=0, description="Connections beyond the most, on which only the routes of health are answered"
    )
    idle_seconds_min: float = Field(
        default=1.0,
        ge=0,
        description="How long a connection may be idle before it has to make room for another, seconds",
    )
    request_seconds_max: float = Field(
        default=10.0, gt=0, description="Longest time that a client may take to send a request, head and body, seconds"
    )
    keep_alive_seconds: int = Field(default=15, gt=0, description="How long an idle connection is kept, seconds")
    shutdown_seconds: int = Field(default=5, gt=0, description="How long a stop waits for running answers, seconds")
    send_seconds_max: float = Field(
        default=30.0, gt=0, description="Longest wait for a client to take the next part of an answer, seconds"
    )
    client_seconds_max: float = Field(default=60.0, gt=0, description="How long commands wait for the API, seconds")
    streams_max: int = Field(default=128, gt=0, description="Streams at the same time; more are refused (503)")
    key_streams_max: int = Field(default=64, gt=0, description="Streams of one API key at the same time (429)")
    stream_symbols_max: int = Field(default=64, gt=0, description="Most symbols of one stream")
    stream_batch_seconds: float = Field(
        default=0.05, gt=0, le=5, description="How often streams are given what is new, seconds"
    )
    stream_heartbeat_seconds: float = Field(
        default=5.0, gt=0, description="Longest time in which a stream sends nothing, seconds"
    )
    stream_buffer_rows_max: int = Field(
        default=20_000, gt=0, description="Rows that wait for the reader of a stream before it counts as slow"
    )
    stream_buffer_bytes_max: int = Field(
        default=4 * 1024 * 1024, gt=0, description="Bytes that wait for the reader of a stream before it counts as slow"
    )
    stream_page_rows: int = Field(
        default=20_000, gt=0, description="Rows that a stream reads at a time of history, and of what a reader missed"
    )
    stream_event_rows_max: int = Field(default=2_000, gt=0, description="Most rows of history in one event")
