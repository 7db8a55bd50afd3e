"""The ``ferry`` command line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn, get_args

import typer
from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table

from pipelines import cli_compare, cli_data, cli_history, cli_release
from pipelines.cli_output import JsonFlag, console, print_json
from pipelines.config import load_pipeline_config, load_settings
from pipelines.errors import ConfigError, FerryError
from pipelines.logs import configure_logging

app = typer.Typer(
    help="Carries recommendation models from training to serving.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_release.app)
app.command("compare")(cli_compare.compare_command)
app.command("history")(cli_history.history_command)

Count = Annotated[int, typer.Option("--count", "-n", min=1, max=50, help="How many items.")]


@app.command()
def recommend(
    user: str,
    count: Count = 10,
    genre: Annotated[
        str | None, typer.Option(help="For a user without a list: popular items of this genre.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Items for a user, best first: precomputed lists in Redis."""
    from pipelines.online.client import FerryClient

    with FerryClient(load_settings()) as client:
        _print_answer(client.recommend(user, count, genre), f"for user {user}", as_json)


@app.command()
def similar(
    item: str,
    count: Count = 10,
    by: Annotated[
        str, typer.Option(help="embeddings, or recs: what the same users like.")
    ] = "embeddings",
    as_json: JsonFlag = False,
) -> None:
    """Items like an item, most similar first: precomputed lists in Redis."""
    from pipelines.online.client import FerryClient, SimilarSource

    for source in get_args(SimilarSource):
        if source == by:
            with FerryClient(load_settings()) as client:
                _print_answer(client.similar(item, count, source), f"like item {item}", as_json)
            return
    raise ConfigError(f"--by {by!r}: choose one of {', '.join(get_args(SimilarSource))}")


@app.command()
def rank(
    user: str,
    items: Annotated[list[str], typer.Argument(help="Candidate item ids.")],
    by: Annotated[
        str, typer.Option(help="embeddings, interests, pmml, tf_serving or all, to compare.")
    ] = "all",
    unit: Annotated[
        str | None,
        typer.Option(help="The Keras ranker for tf_serving; else the first live one."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Candidates in the order that suits a user, by each way of scoring."""
    from pipelines.online.client import RANKING_UNITS, FerryClient

    methods = [method for method in RANKING_UNITS if by in (method, "all")]
    if not methods:
        raise ConfigError(f"--by {by!r}: choose one of {', '.join(RANKING_UNITS)} or all")
    with FerryClient(load_settings()) as client:
        answers = {
            method: client.rank(user, items, method, unit if method == "tf_serving" else None)
            for method in methods
        }
    if as_json:
        print_json({method: answer.model_dump() for method, answer in answers.items()})
        return
    for method, answer in answers.items():
        _print_answer(answer, f"for user {user}, by {method}", as_json=False)


@app.command("config")
def check_config() -> None:
    """Check pipeline.yaml and the environment, and say what is used."""
    settings = load_settings()
    config = load_pipeline_config(settings.config)
    typer.echo(f"{settings.config}: valid; units: {', '.join(config.models.enabled_units())}")


def _print_answer(answer: BaseModel, heading: str, as_json: bool) -> None:
    content = answer.model_dump()
    if as_json:
        print_json(content)
        return
    has_scores = any(item["score"] is not None for item in content["items"])
    table = Table(
        *["", "item", "title", *(["score"] if has_scores else [])],
        title=f"{content['unit']} {content['version']} {escape(heading)}",
        title_justify="left",
    )
    for position, item in enumerate(content["items"], start=1):
        title = escape(item["title"] or "(not in the catalogue)")
        cells = [str(position), escape(item["item_id"]), title]
        if has_scores:
            cells.append("" if item["score"] is None else f"{item['score']:.4f}")
        table.add_row(*cells)
    if content["items"]:
        console.print(table)
    if content["note"]:
        console.print(f"note: {escape(content['note'])}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; an error of ours, or in its arguments, is one line and exit code 1."""
    # Who waits at a terminal wants to see how far it is; elsewhere errors stand alone.
    configure_logging(logging.INFO if sys.stderr.isatty() else logging.WARNING)
    try:
        code = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except FerryError as error:
        _fail(str(error))
    except typer.TyperException as error:
        _fail(error.format_message())
    if code:
        sys.exit(code)


def _fail(message: str) -> NoReturn:
    # Without a command the help has been printed already, and there is no message.
    if message:
        typer.echo(f"ferry: {' '.join(message.split())}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
