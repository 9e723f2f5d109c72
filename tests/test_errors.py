"""The error tree and its exit codes."""

from collections.abc import Iterator

from medssl.errors import MedSSLError


def below(kind: type[MedSSLError]) -> Iterator[type[MedSSLError]]:
    yield kind
    for part in kind.__subclasses__():
        yield from below(part)


def test_no_error_has_the_code_of_a_command_that_is_done() -> None:
    assert [kind.__name__ for kind in below(MedSSLError) if kind.exit_code in (0, 1)] == []
