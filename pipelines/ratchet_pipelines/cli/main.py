"""The command line `ratchet`: the loop, its steps, the data, the services, releases and studies.

Exit codes: 0 done; 2 the user can fix it (stderr says how); 1 a bug.
"""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from ratchet_pipelines.cli import (
    compile,
    config,
    importing,
    lake,
    lineage,
    loop,
    quarantine,
    rehearse,
    releases,
    services,
)
from ratchet_pipelines.cli.calibrate_judge import calibrate_judge
from ratchet_pipelines.cli.doctor import doctor
from ratchet_pipelines.cli.error_rates import error_rates
from ratchet_pipelines.cli.steps import step_command
from ratchet_pipelines.console import guarded
from ratchet_pipelines.graph import STEPS

Command = Callable[..., Any] | typer.Typer
PANELS: dict[str, dict[str, Command]] = {
    "First": {
        "doctor": doctor,
    },
    "The loop": {
        "run": loop.run,
        "plan": loop.plan,
        "merge": loop.merge,
        "demo": loop.demo,
        "report": loop.report,
    },
    "Steps, each alone": {step.name.replace("_", "-"): step_command(step) for step in STEPS},
    "Data": {
        "import": importing.import_,
        "lake": lake.lake_app,
        "quarantine": quarantine.app,
        "where-used": lineage.where_used,
        "explain": lineage.explain,
    },
    "Serve": {
        "serve-router": services.serve_router,
        "serve-model": services.serve_model,
        "serve-syncer": services.serve_syncer,
        "serve-gate": services.serve_gate,
        "hold-duels": services.hold_duels,
        "reconcile": services.reconcile,
        "drift": services.drift,
    },
    "Release": {
        "releases": releases.app,
        "approve": releases.approve,
        "abort": releases.abort,
        "rollback": releases.rollback,
        "hook-token": releases.hook_token,
    },
    "Studies": {
        "rehearse": rehearse.rehearse,
        "simulate-gate": rehearse.simulate_gate,
        "error-rates": error_rates,
        "calibrate-judge": calibrate_judge,
    },
    "Settings, and files for other orchestrators": {
        "profile": config.profile,
        "config": config.app,
        "compile": compile.app,
    },
}
ORDER = [name for commands in PANELS.values() for name in commands]


class Commands(TyperGroup):
    """The commands in the order of the panels; underscores in a name are taken for hyphens.

    Orchestrators name the steps with underscores, as manifests and settings do.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name.replace("_", "-"))


app = typer.Typer(
    cls=Commands,
    help="Turn users' votes on answers into LoRA adapters, and release only those that are no worse.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in PANELS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(command)


def main() -> None:
    guarded(lambda: app(prog_name="ratchet"))


if __name__ == "__main__":
    main()
