"""The linter: each kind of fault is found, and renaming any reference of the good templates is."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet_pipelines.argo.compile import compile_documents
from ratchet_pipelines.argo.lint import lint
from ratchet_pipelines.argo.references import parses
from ratchet_pipelines.argo.settings import Settings

GOOD = compile_documents(Settings(image="ratchet-components:0.1.0"))
Spec = dict[str, Any]


def sound() -> list[dict[str, Any]]:
    """Two WorkflowTemplates and a CronWorkflow, small enough to break by hand."""
    work = {
        "name": "work",
        "inputs": {"parameters": [{"name": "uri"}, {"name": "mood", "value": "calm"}]},
        "container": {
            "args": ["{{inputs.parameters.uri}}", "{{inputs.parameters.mood}}"],
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        },
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "outputs": {"parameters": [{"name": "uri", "valueFrom": {"path": "/tmp/uri"}}]},
    }
    first = {
        "name": "first",
        "templateRef": {"name": "library", "template": "work"},
        "arguments": uri("{{workflow.parameters.seed}}"),
    }
    second = {
        "name": "second",
        "templateRef": {"name": "library", "template": "work"},
        "depends": "first.Succeeded || first.Skipped",
        "arguments": uri("{{tasks.first.outputs.parameters.uri}}"),
    }
    end = {"name": "end", "container": {"args": ["{{workflow.status}}"]}}
    spec = {
        "entrypoint": "main",
        "onExit": "end",
        "hooks": {"running": {"template": "end", "expression": 'workflow.status == "Running"'}},
        "arguments": {"parameters": [{"name": "seed"}]},
        "templates": [{"name": "main", "dag": {"tasks": [first, second]}}, end],
    }
    cron = {
        "workflowSpec": {
            "workflowTemplateRef": {"name": "flow"},
            "arguments": {"parameters": [{"name": "seed", "value": "1"}]},
        }
    }
    return copy.deepcopy(
        [
            {"kind": "WorkflowTemplate", "metadata": {"name": "library"}, "spec": {"templates": [work]}},
            {"kind": "WorkflowTemplate", "metadata": {"name": "flow"}, "spec": spec},
            {"kind": "CronWorkflow", "metadata": {"name": "nightly"}, "spec": cron},
        ]
    )


def uri(value: str) -> dict[str, Any]:
    return {"parameters": [{"name": "uri", "value": value}]}


def test_sound_templates_have_no_faults() -> None:
    assert lint(sound()) == []


def second(spec: Spec) -> dict[str, Any]:
    task: dict[str, Any] = spec["templates"][0]["dag"]["tasks"][1]
    return task


def parameters(holder: Spec) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = holder["arguments"]["parameters"]
    return given


@pytest.mark.parametrize(
    ("break_flow", "fault"),
    [
        (lambda flow: flow.update(entrypoint="mian"), "flow.entrypoint: no template 'mian'"),
        (lambda flow: flow.update(onExit="ende"), "flow.onExit: no template 'ende'"),
        (lambda flow: flow["hooks"]["running"].update(template="ende"), "flow.hooks.running: no template 'ende'"),
        (lambda flow: second(flow).update(templateRef={"name": "libary", "template": "work"}), "libary"),
        (lambda flow: second(flow).update(templateRef={"name": "library", "template": "wrok"}), "wrok"),
        (lambda flow: second(flow).update(depends="frist"), "depends on 'frist'"),
        (lambda flow: second(flow).update(depends="first.Suceeded"), "depends on 'first.Suceeded'"),
        (lambda flow: second(flow).update(depends="first &&"), "cannot be read"),
        (lambda flow: second(flow).update(depends="(first || first"), "cannot be read"),
        (lambda flow: second(flow).update(depends="first & first"), "cannot be read"),
        (lambda flow: second(flow).update(depends="second"), "wait for each other"),
        (lambda flow: second(flow).pop("depends"), "{{tasks.first.outputs.parameters.uri}} refers to nothing"),
        (lambda flow: second(flow).update(name="first"), "two tasks have one name"),
        (lambda flow: flow["templates"].append(flow["templates"][1]), "two templates have one name"),
        (lambda flow: second(flow).update(arguments=uri("{{tasks.first.outputs.parameters.x}}")), "refers to nothing"),
        (lambda flow: second(flow).update(arguments=uri("{{tasks.x.outputs.parameters.uri}}")), "refers to nothing"),
        (lambda flow: second(flow).update(arguments=uri("{{inputs.parameters.uri}}")), "refers to nothing"),
        (lambda flow: second(flow).update(arguments=uri("{{workflow.parameters.x}}")), "refers to nothing"),
        (lambda flow: second(flow).update(arguments=uri("{{=1 + 1}}")), "refers to nothing"),
        (lambda flow: second(flow).update(when="'{{workflow.x}}' == 'x'"), "{{workflow.x}} refers to nothing"),
        (lambda flow: second(flow).pop("arguments"), "work needs the parameter 'uri'"),
        (lambda flow: parameters(second(flow)).append({"name": "x", "value": ""}), "work takes no parameter 'x'"),
        (lambda flow: parameters(flow).append({"name": "x"}), "workflow.parameters.x is declared and never used"),
        (lambda flow: flow["templates"].append({"name": "spare", "container": {}}), "flow.spare: nothing uses it"),
    ],
)
def test_each_fault_of_a_workflow_is_named(break_flow: Callable[[Spec], object], fault: str) -> None:
    documents = sound()
    break_flow(documents[1]["spec"])
    assert fault in "\n".join(lint(documents))


@pytest.mark.parametrize(
    ("break_work", "fault"),
    [
        (lambda work: work["inputs"]["parameters"].append({"name": "x", "value": ""}), "parameters.x is declared"),
        (lambda work: work["container"]["args"].append("{{inputs.parameters.x}}"), "refers to nothing"),
        (lambda work: work["container"]["args"].append("{{inputs.artifacts.x.path}}"), "refers to nothing"),
        (lambda work: work["outputs"].update(parameters=[]), "{{tasks.first.outputs.parameters.uri}} refers to"),
        (lambda work: work.update(volumes=[]), "volume 'tmp' is mounted but not declared"),
        (lambda work: work["container"].update(volumeMounts=[]), "volume 'tmp' is never mounted"),
    ],
)
def test_each_fault_of_a_container_is_named(break_work: Callable[[Spec], object], fault: str) -> None:
    documents = sound()
    break_work(documents[0]["spec"]["templates"][0])
    assert fault in "\n".join(lint(documents))


@pytest.mark.parametrize(
    ("workflow", "fault"),
    [
        ({"workflowTemplateRef": {"name": "flaw"}}, "nightly: no WorkflowTemplate 'flaw'"),
        ({"workflowTemplateRef": {"name": "flow"}}, "flow needs the parameter 'seed'"),
        ({"workflowTemplateRef": {"name": "flow"}, "arguments": uri("x")}, "flow takes no parameter 'uri'"),
    ],
)
def test_each_fault_of_a_schedule_is_named(workflow: Spec, fault: str) -> None:
    documents = sound()
    documents[2]["spec"]["workflowSpec"] = workflow
    assert fault in "\n".join(lint(documents))


def references(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all strings by which one object of Argo names another."""
    if isinstance(node, str):
        is_call = path[-1] in ("entrypoint", "onExit", "template", "depends")
        is_argument = path[-1] == "name" and ("arguments" in path or "volumeMounts" in path) and "tasks" in path
        is_library = path[-2:] in (("templateRef", "name"), ("workflowTemplateRef", "name"))
        if is_call or is_argument or is_library or "{{" in node:
            yield path
    elif isinstance(node, (dict, list)):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from references(child, (*path, key))


REFERENCES = sorted(references(GOOD), key=str)


@given(st.sampled_from(REFERENCES), st.text("abcxyz-", min_size=1, max_size=8))
def test_renaming_any_reference_is_found(path: tuple[Any, ...], more: str) -> None:
    documents = copy.deepcopy(GOOD)
    node: Any = documents
    for key in path[:-1]:
        node = node[key]
    name = node[path[-1]]
    node[path[-1]] = name.replace("}}", f"{more}}}}}", 1) if "{{" in name else name + more
    assert lint(documents)


@given(
    st.recursive(
        st.sampled_from(["a", "b-1.Succeeded"]),
        lambda inner: st.one_of(
            inner.map(lambda each: f"({each})"),
            inner.map(lambda each: f"!{each}"),
            st.tuples(inner, st.sampled_from([" && ", "||"]), inner).map("".join),
        ),
    )
)
def test_every_boolean_expression_of_tasks_parses(depends: str) -> None:
    assert parses(depends)
    assert not parses(depends + " &&")
    assert not parses("(" + depends)
