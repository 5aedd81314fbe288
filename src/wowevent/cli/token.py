"""`wowevent token`: who may come, and for what: create, revoke, list. They change a file; servers read it again."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from wowevent.access.rights import EVERYTHING, Limits
from wowevent.access.tokens import Token, Tokens, encode_tokens, issue, parse_tokens, revoke_jwt
from wowevent.access.tokens import revoke as revoked
from wowevent.cli.arguments import term
from wowevent.cli.engine import Namespace, note, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.private import make_private_folder, write_private
from wowevent.cli.show import local_time, print_all
from wowevent.settings import Settings

_FILE: Final = "tokens.json"
_COLUMNS: Final = ("ID", "NAME", "NAMESPACE", "STATE", "EXPIRES", "GRANTS")

File = Annotated[
    Path | None, typer.Option(help="The file of tokens.", show_default="WOWEVENT_TOKENS, else in the data directory")
]
Patterns = list[str] | None

app: typer.Typer = typer.Typer(help="Tokens: who may come, and for what.", no_args_is_help=True)


@app.command()
def create(  # noqa: PLR0917 - the options of a command
    name: Annotated[str, typer.Argument(help="The agent: the source of all that is published with it.")],
    publish: Annotated[
        Patterns, typer.Option(metavar="PATTERN", help="What it may publish; several times, too.")
    ] = None,
    subscribe: Annotated[Patterns, typer.Option(metavar="PATTERN", help="What it may hear.")] = None,
    replay: Annotated[Patterns, typer.Option(metavar="PATTERN", help="Whose history it may read and replay.")] = None,
    dead_letters: Annotated[Patterns, typer.Option(metavar="PATTERN", help="Whose dead letters it may handle.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Pause, purge and remove subscriptions; schemas.")] = False,
    expires: Annotated[str | None, typer.Option(help="After 30d, 12h, 15m or 90s.", show_default="never")] = None,
    namespace: Namespace = None,
    events: Annotated[str | None, typer.Option(help="Events that it may publish: 100/s.", show_default="any")] = None,
    requests: Annotated[
        str | None, typer.Option(help="HTTP requests that it may make: 10/s.", show_default="any")
    ] = None,
    clients: Annotated[int | None, typer.Option(min=1, help="Its sockets at once.", show_default="any")] = None,
    subscriptions: Annotated[int | None, typer.Option(min=1, help="Of one socket.", show_default="any")] = None,
    tokens: File = None,
) -> None:
    """Create a token and print its secret, this once: only a hash is kept. Whatever is not granted is refused."""
    settings = settle(namespace=namespace)
    path, now = _path(tokens, settings), time.time()
    wanted = {"publish": publish, "subscribe": subscribe, "replay": replay, "dead_letters": dead_letters}
    grants = {right: tuple(patterns) for right, patterns in wanted.items() if patterns}
    with _changing(path) as held:
        changed, token, secret = issue(
            held[0], name, now,
            grants=grants | ({"admin": (EVERYTHING,)} if admin else {}),
            expires=None if expires is None else now + term(expires, "--expires"),
            namespace=settings.namespace,
            limits=Limits(events, requests, clients, subscriptions),
        )  # fmt: skip
        held[0] = changed
    print(secret)
    note(f"token {token.id} of {name} in {path}; its secret is not shown again")
    if settings.tokens is None:
        note(f"a service asks for tokens once it knows the file: serve --tokens {path}, or WOWEVENT_TOKENS")


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(help="The id of a token, as list shows it.")],
    jwt: Annotated[bool, typer.Option("--jwt", help="ID is the jti of a JWT.")] = False,
    tokens: File = None,
) -> None:
    """Revoke a token, for good: servers heed it within two seconds, also for who is connected."""
    path = _path(tokens, settle())
    with _changing(path) as held:
        changed = revoke_jwt(held[0], id) if jwt else revoked(held[0], id, time.time())
        if changed is None:
            raise CommandError("token_not_found", f"{path} has no token {id!r:.80}")
        held[0] = changed
    print(f"revoked {id}")


@app.command("list")
def list_all(
    json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False, tokens: File = None
) -> None:
    """Print the tokens, never a secret."""
    print_all(_read(_path(tokens, settle())).tokens, _COLUMNS, _row, json=json, fields=_fields)


def _fields(token: Token) -> dict[str, Any]:
    """A token for programs, but for what could be tried out until a secret fits."""
    shown = msgspec.to_builtins(token)
    del shown["sha256"]
    return {**shown, "state": _state(token)}


def _path(given: Path | None, settings: Settings) -> Path:
    """Where the file is, or will be."""
    if given is not None:
        return given.absolute()
    if settings.tokens is None:
        return settings.data_dir.absolute() / _FILE
    if settings.tokens.lstrip().startswith("{"):
        raise CommandError("usage", "the setting tokens is the JSON itself, which is nowhere to change; name a file")
    return Path(settings.tokens).absolute()


def _read(path: Path) -> Tokens:
    try:
        return parse_tokens(path.read_bytes())
    except FileNotFoundError:
        return Tokens()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@contextmanager
def _changing(path: Path) -> Iterator[list[Tokens]]:
    """What the file says, to be exchanged for what it is to say; nobody else changes it meanwhile."""
    path = path.resolve()  # who comes by a link waits for who does not
    make_private_folder(path.parent)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        held = [_read(path)]
        yield held
        write_private(path, encode_tokens(held[0]))
    finally:
        os.close(folder)


def _state(token: Token) -> str:
    if token.revoked is not None:
        return "revoked"
    return "expired" if token.expires is not None and time.time() >= token.expires else "valid"


def _row(token: Token) -> tuple[str, ...]:
    grants = "; ".join(f"{right} {' '.join(patterns)}" for right, patterns in token.grants.items())
    expires = "-" if token.expires is None else local_time(token.expires)
    return token.id, token.name, token.namespace or "any", _state(token), expires, grants or "-"
