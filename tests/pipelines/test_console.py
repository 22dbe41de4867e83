"""What a program's end tells: one message or a traceback, and never a password."""

import pytest

from ratchet.errors import UserError, without_credentials
from ratchet_pipelines.console import guarded

ADDRESS = "https://me:s3cr3t@mlflow.example.com/api"


@pytest.mark.parametrize(("error", "code"), [(UserError, 2), (ConnectionError, 1)])
def test_credentials_in_addresses_are_not_told(
    error: type[Exception], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def program() -> None:
        raise error(f"{ADDRESS} is away")

    with pytest.raises(SystemExit) as ended:
        guarded(program)
    told = capsys.readouterr().err
    assert ended.value.code == code
    assert "***@mlflow.example.com" in told
    assert "s3cr3t" not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a https://u:p@host/x and ssh://git@host/y", "a https://***@host/x and ssh://***@host/y"),
        ("https://host/path@2 stays", "https://host/path@2 stays"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_only_users_and_passwords_are_left_out(text: str, told: str) -> None:
    assert without_credentials(text) == told
