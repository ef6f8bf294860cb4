"""Upgrading the database and asking whether it is up to date."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Select, column, select, table

from infra.settings import Settings


def _config(settings: Settings | None = None) -> Config:
    config = Config(str(files("migrations") / "alembic.ini"))
    config.attributes["settings"] = settings
    return config


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Bring the database to a revision; concurrent callers wait for one another.

    Raises:
        ValueError: the database is at a revision that this version does not know.
    """
    try:
        command.upgrade(_config(settings), revision)
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        raise ValueError(
            f"the database is at revision {error.__cause__.argument}, which this version of "
            "Datassay does not know: run the version that made it, or start with an empty database"
        ) from error


def downgrade(settings: Settings, revision: str) -> None:
    """Take the database back; for operators who roll a release back."""
    command.downgrade(_config(settings), revision)


def check(settings: Settings) -> None:
    """Raise `alembic.util.CommandError` when the tables differ from the migrations."""
    command.check(_config(settings))


def head() -> str:
    """The revision this code expects."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None, "the package ships at least one migration"
    return revision


def current() -> Select[str]:
    """The revision that a database is at."""
    return select(column("version_num")).select_from(table("alembic_version"))
