"""``ferry data``: bring data in, look at the lake's days, begin anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli_output import JsonFlag, print_json, say
from pipelines.config import Settings, load_pipeline_config, load_settings
from pipelines.data.identity import LakeSource, Origin, SyntheticWorld, reset
from pipelines.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

app = typer.Typer(help="Bring data in, look after the lake.", no_args_is_help=True)

EndDate = Annotated[
    str | None,
    typer.Option(help="The newest event falls on this day (YYYY-MM-DD)."),
]
YesFlag = Annotated[bool, typer.Option("--yes", help="Don't ask.")]


def parse_day(text: str | None, option: str) -> date | None:
    """Return a day that was given as an option, or None without one.

    Raises:
        ConfigError: it is no date.
    """
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r} is not a date: write it as YYYY-MM-DD") from error


@app.command("import-movielens")
def import_movielens_command(
    folder: Annotated[Path, typer.Argument(help="Folder with ratings.csv and movies.csv.")],
    end_date: EndDate = None,
) -> None:
    """Bring a MovieLens folder into the lake's landing area."""
    from pipelines.data.movielens import import_movielens
    from pipelines.steps.data import lake_to_itself

    settings, end = load_settings(), parse_day(end_date, "--end-date")
    with lake_to_itself(settings, "ferry data import-movielens"):
        typer.echo(import_movielens(folder, settings.lake, end))


@app.command("synth")
def synth_command(
    users: Annotated[int, typer.Option(min=1)] = 2000,
    items: Annotated[int, typer.Option(min=1)] = 1500,
    days: Annotated[int, typer.Option(min=1)] = 60,
    seed: int = 42,
    end_date: EndDate = None,
) -> None:
    """Generate a synthetic data set with tastes that models can learn.

    It ends on the day before today, and goes on by itself: each run finds it up to its run date.
    """
    from pipelines.data.synthetic import generate, go_on
    from pipelines.steps.data import lake_to_itself

    settings = load_settings()
    lake, until = settings.lake, parse_day(end_date, "--end-date")
    origin = Origin.of_landing(lake)
    wanted = {"users": users, "items": items, "days": days, "seed": seed}
    is_same = (
        isinstance(made := origin.brought if origin else None, SyntheticWorld)
        and made.model_dump(include=set(wanted)) == wanted
    )
    with lake_to_itself(settings, "ferry data synth"):
        if until is None and is_same:
            added = go_on(lake, _yesterday())
            typer.echo(f"{made} in {lake.landing}: {added} days added")
        else:
            typer.echo(generate(lake, users, items, days, seed, until or _yesterday()))


@app.command("reset")
def reset_command(yes: YesFlag = False) -> None:
    """Empty the lake, for data from another source.

    Removes what was read from its source: the landing area, the days, the catalogue, the users,
    the quarantine and the runs' folders. Sealed versions, what is live, and secrets stay.
    """
    from pipelines.steps.data import lake_to_itself

    settings = load_settings()
    lake = settings.lake
    made_from = LakeSource.of_lake(lake)
    name = made_from.name if made_from else "an unknown source"
    if not yes:
        typer.confirm(f"Empty the lake {lake.root}, made from {name}?", abort=True)
    with lake_to_itself(settings, "ferry data reset"):
        removed = reset(lake)
    if removed:
        say(f"removed: {', '.join(path.removeprefix(f'{lake.root}/') for path in removed)}")
        say("sealed versions and what is live stay; 'ferry status' marks what is of another lake")
    else:
        say(f"{lake.root}: the lake is empty")


@app.command("adopt")
def adopt_command(yes: YesFlag = False) -> None:
    """Go on with a lake whose source has another name now: the same data, moved or renamed."""
    settings = load_settings()
    lake = settings.lake
    made_from = LakeSource.of_lake(lake)
    now = LakeSource.configured(load_pipeline_config(settings.config).data, lake)
    if made_from is None:
        raise DataError(f"{lake.root}: no source of this lake is known: the next run adopts it")
    if not made_from.is_compatible(now):
        raise DataError(
            f"the lake {lake.root} can't go on with {now.name}: "
            f"{'; '.join(made_from.changes(now))}; 'ferry data reset' empties it"
        )
    if not yes:
        typer.confirm(
            f"The lake {lake.root} was made from {made_from.name}. Is {now.name} the same data?",
            abort=True,
        )
    now.save(lake.made_from)
    say(f"{lake.root}: goes on with {now.name}")


@app.command("reread")
def reread_command(
    first: Annotated[
        str | None, typer.Option("--from", help="Read from this day on, complete or not.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="… up to this day.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which days.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Find days that were read before they had ended, and read them again from the source.

    With --from and --to, these days whatever is known of them: for rows that came later than
    `data.late_days`. Days that the source does not have any more stay as they are.
    """
    from pipelines.steps.data import lake_to_itself

    settings = load_settings()
    config = load_pipeline_config(settings.config)
    span = (parse_day(first, "--from"), parse_day(last, "--to"))
    with _spark(settings) as spark, lake_to_itself(settings, "ferry data reread"):
        from pipelines.data.ingest import days_to_reread, reread

        days = days_to_reread(spark, config.data, settings.lake, *span)
        done = None if dry_run else reread(spark, config.data, settings.lake, set(days))
    if as_json:
        read_at = {str(day): at.isoformat() for day, at in days.items()}
        print_json({"days": read_at, "reread": done.model_dump(mode="json") if done else None})
        return
    for day, at in days.items():
        say(f"{day}: read at {at:%Y-%m-%d %H:%M} UTC")
    if not days:
        say(f"{settings.lake.root}: every day was read after it had ended")
    elif done is None:
        say(f"{len(days)} days to read again")
    else:
        for line in done.describe():
            say(line)


@contextmanager
def _spark(settings: Settings) -> Iterator[SparkSession]:
    from pipelines.capacity import driver_memory
    from pipelines.spark import driver_java_options, spark_session

    configured = load_pipeline_config(settings.config).operations.heavy_tasks
    conf = {
        "spark.driver.memory": driver_memory(configured),
        "spark.driver.extraJavaOptions": driver_java_options(),
    }
    with spark_session("ferry data", settings.spark_master, **conf) as spark:
        yield spark


def _yesterday() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)
