"""Server-sent events as the standard has them, cut anywhere on their way."""

import pytest

from studies.event_stream import EventParser, Message


def parse(stream: bytes, size: int = 1000) -> list[Message]:
    parser = EventParser()
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    return [message for chunk in chunks for message in parser.feed(chunk)]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_events_are_read_whatever_ends_their_lines_and_wherever_they_are_cut(
    ending: str, size: int
) -> None:
    lines = [": hello", "id: 7", "event: study.best", "data: {", "data:  größer}", "", "data: x"]
    stream = (ending.join([*lines, "", ": "]) + ending).encode()
    assert parse(stream, size) == [
        Message("study.best", "{\n größer}"),
        Message("message", "x"),
    ]


def test_a_comment_and_an_id_alone_are_no_event_and_still_move_the_place_to_resume_from() -> None:
    parser = EventParser("3")
    assert list(parser.feed(b": \nid: 9\n")) == []
    assert parser.last_id == "3"  # its block is not over yet
    assert list(parser.feed(b"\n")) == []
    assert parser.last_id == "9"


def test_an_event_that_breaks_off_is_dropped_and_not_resumed_from() -> None:
    parser = EventParser()
    whole = b"id: 1\ndata: a\n\n"
    assert [message.data for message in parser.feed(whole + b"id: 2\ndata: b\n")] == ["a"]
    assert parser.last_id == "1"


def test_fields_without_colon_unknown_fields_and_a_byte_order_mark_are_borne() -> None:
    assert parse("\ufeffdata\nfoo: bar\ndata: y\nid: a\0b\n\n".encode()) == [
        Message("message", "\ny")
    ]


def test_the_time_to_wait_is_a_whole_number_of_milliseconds() -> None:
    parser = EventParser()
    assert list(parser.feed(b"retry: 2000\n\nretry: soon\n\n")) == []
    assert parser.retry_s == 2.0
