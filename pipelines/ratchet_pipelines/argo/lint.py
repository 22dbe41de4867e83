"""Check what the schemas of Argo's objects cannot: that every reference resolves.

Stricter than Argo where that costs nothing: no expression tags (`{{=...}}`), which this linter cannot check, and no
unused declaration. It knows the kinds of templates that are written here: containers, DAGs and suspended nodes.
"""

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import chain

from ratchet_pipelines.argo.references import (
    Node,
    ancestors,
    edges,
    find,
    named,
    operands,
    parameters,
    parses,
    tags,
)

RESULTS = {"Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed"}
GLOBALS = {"workflow.name", "workflow.namespace", "workflow.uid", "workflow.status", "workflow.failures", "pod.name"}
Library = Mapping[str, Node]


def lint(documents: Iterable[Node]) -> list[str]:
    """Return every fault, with its place, in a closed set of WorkflowTemplates and CronWorkflows."""
    documents = list(documents)
    library = named(
        {"name": each["metadata"]["name"], **each} for each in documents if each["kind"] == "WorkflowTemplate"
    )
    crons = [each for each in documents if each["kind"] == "CronWorkflow"]
    faults = [_spec(document, library) for document in library.values()] + [_cron(cron, library) for cron in crons]
    return [*chain.from_iterable(faults), *_unreached(library)]


def _spec(document: Node, library: Library) -> Iterator[str]:
    place, spec = document["name"], document["spec"]
    templates, declared = named(spec["templates"]), parameters(spec.get("arguments"))
    if len(templates) < len(spec["templates"]):
        yield f"{place}: two templates have one name"
    for key in ("entrypoint", "onExit"):
        if key in spec and spec[key] not in templates:
            yield f"{place}.{key}: no template {spec[key]!r} here"
    for hook, caller in spec.get("hooks", {}).items():
        yield from _call(caller, document, library, f"{place}.hooks.{hook}")
    for name, template in templates.items():
        yield from _template(template, document, library, f"{place}.{name}")
    for unused in sorted({f"workflow.parameters.{name}" for name in declared} - tags(spec)):
        yield f"{place}: {unused} is declared and never used"


def _template(template: Node, document: Node, library: Library, place: str) -> Iterator[str]:
    tasks = template.get("dag", {}).get("tasks", [])
    yield from _dag(tasks, place)
    volumes = set(named(template.get("volumes", [])))
    mounted = set(named(template.get("container", {}).get("volumeMounts", [])))
    for name in sorted(volumes ^ mounted):
        yield f"{place}: volume {name!r} is {'mounted but not declared' if name in mounted else 'never mounted'}"
    yield from _tags(template, tasks, document, library, place)
    for task in tasks:
        yield from _call(task, document, library, f"{place}.{task['name']}")
    for kind in ("parameters", "artifacts") if "suspend" not in template else ():  # whose inputs are a form
        for name in named(template.get("inputs", {}).get(kind, [])):
            if not any(tag.startswith(f"inputs.{kind}.{name}") for tag in tags(template)):
                yield f"{place}: inputs.{kind}.{name} is declared and never used"


def _call(caller: Node, document: Node, library: Library, place: str) -> Iterator[str]:
    """Check that a task or hook calls an existing template with exactly its parameters."""
    called = _called(caller, document, library)
    if called is None:
        yield f"{place}: no template {caller.get('templateRef') or caller.get('template')!r}"
        return
    yield from _arguments(caller, parameters(called.get("inputs")), f"{place}: {called['name']}")


def _called(caller: Node, document: Node, library: Library) -> Node | None:
    reference = caller.get("templateRef", {"name": document["name"], "template": caller.get("template")})
    found = library.get(reference["name"], {"spec": {"templates": []}})
    return named(found["spec"]["templates"]).get(reference["template"])


def _arguments(caller: Node, declared: Mapping[str, Node], called: str) -> Iterator[str]:
    given = parameters(caller.get("arguments"))
    for name in sorted(given.keys() - declared.keys()):
        yield f"{called} takes no parameter {name!r}"
    for name in sorted(declared.keys() - given.keys()):
        if not {"value", "default"} & declared[name].keys():
            yield f"{called} needs the parameter {name!r}"


def _dag(tasks: list[Node], place: str) -> Iterator[str]:
    graph = edges(tasks)
    if len(graph) < len(tasks):
        yield f"{place}: two tasks have one name"
    for task in tasks:
        for operand in operands(task):
            before, _, result = operand.partition(".")
            if before not in graph or (result and result not in RESULTS):
                yield f"{place}.{task['name']}: depends on {operand!r}, which is no task or no result"
        if "depends" in task and not parses(task["depends"]):
            yield f"{place}.{task['name']}: depends {task['depends']!r} cannot be read"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"{place}: tasks wait for each other: {' -> '.join(error.args[1])}"


def _tags(template: Node, tasks: list[Node], document: Node, library: Library, place: str) -> Iterator[str]:
    """Check tags: a task may use outputs of the tasks before it; the rest of a template, those of any task."""
    graph = edges(tasks)
    given = {}
    for task in tasks:
        outputs = (_called(task, document, library) or {}).get("outputs", {})
        entries = [(kind, name) for kind in ("parameters", "artifacts") for name in named(outputs.get(kind, []))]
        given[task["name"]] = {f"tasks.{task['name']}.outputs.{kind}.{name}" for kind, name in entries}
    known = GLOBALS | {f"workflow.parameters.{name}" for name in parameters(document["spec"].get("arguments"))}
    known |= {f"inputs.parameters.{name}" for name in parameters(template.get("inputs"))}
    known |= {f"inputs.artifacts.{name}.path" for name in named(template.get("inputs", {}).get("artifacts", []))}
    for task in tasks:
        seen = known.union(*(given.get(name, set()) for name in ancestors(task["name"], graph)))
        yield from _unknown(task, seen, f"{place}.{task['name']}")
    yield from _unknown({**template, "dag": None}, known.union(*given.values()), place)


def _unknown(node: Node, known: set[str], place: str) -> Iterator[str]:
    return (f"{place}: {{{{{tag}}}}} refers to nothing" for tag in sorted(tags(node) - known))


def _cron(cron: Node, library: Library) -> Iterator[str]:
    place, workflow = f"CronWorkflow {cron['metadata']['name']}", cron["spec"]["workflowSpec"]
    reference = workflow.get("workflowTemplateRef", {}).get("name")
    if reference not in library:
        yield f"{place}: no WorkflowTemplate {reference!r}"
        return
    yield from _arguments(workflow, parameters(library[reference]["spec"].get("arguments")), f"{place}: {reference}")


def _unreached(library: Library) -> Iterator[str]:
    called = {(reference["name"], reference["template"]) for reference in find(list(library.values()), "templateRef")}
    for name, document in library.items():
        spec = document["spec"]
        called |= {
            (name, template) for template in (spec.get("entrypoint"), spec.get("onExit"), *find(spec, "template"))
        }
    for name, document in library.items():
        for template in named(document["spec"]["templates"]):
            if (name, template) not in called:
                yield f"{name}.{template}: nothing uses it"
