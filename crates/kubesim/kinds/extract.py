#!/usr/bin/env python3
"""Writes types.json: the shape of the built-in types that kubesim serves.

    extract.py OPENAPI_FOLDER GO_MODULES > types.json

OPENAPI_FOLDER holds what an API server answers at /openapi/v3/..., a file a group version
(api_v1.json, apis_apps_v1.json, ...). GO_MODULES is a folder with k8s.io/api and k8s.io/apimachinery,
whose struct tags tell what OpenAPI leaves out: which fields can be absent and yet zero (pointers).
Only structure is taken: names, types, defaults, merge keys. No text.
"""
import json
import pathlib
import re
import sys

ROOTS = """
core.v1.Namespace core.v1.Pod core.v1.Node core.v1.Event core.v1.Service core.v1.ConfigMap core.v1.Secret
core.v1.ServiceAccount core.v1.Endpoints core.v1.Binding apps.v1.Deployment apps.v1.ReplicaSet
apps.v1.StatefulSet apps.v1.DaemonSet apps.v1.ControllerRevision batch.v1.Job batch.v1.CronJob
coordination.v1.Lease events.v1.Event discovery.v1.EndpointSlice policy.v1.PodDisruptionBudget
policy.v1.Eviction scheduling.v1.PriorityClass admissionregistration.v1.ValidatingAdmissionPolicy
admissionregistration.v1.ValidatingAdmissionPolicyBinding autoscaling.v1.Scale
admissionregistration.v1.ValidatingWebhookConfiguration
admissionregistration.v1.MutatingWebhookConfiguration
""".split()
KEPT = ["type", "format", "enum", "default", "required", "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-patch-merge-key",
        "x-kubernetes-patch-strategy", "x-kubernetes-group-version-kind", "x-kubernetes-int-or-string"]
EXTRA = ["io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
         "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
         "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
         "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"]
REF = "#/components/schemas/"


def slim(node):
    """A schema without text; `allOf` of one reference becomes the reference."""
    out = {key: node[key] for key in KEPT if key in node}
    if "oneOf" in node and not node.get("type"):
        out["x-kubernetes-int-or-string"] = True
    ref = node.get("$ref") or next((one["$ref"] for one in node.get("allOf", []) if "$ref" in one), None)
    if ref:
        out["$ref"] = ref
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            out[key] = slim(node[key])
    if "properties" in node:
        out["properties"] = {name: slim(value) for name, value in node["properties"].items()}
    return out


def refs(node):
    """Every definition that a schema names."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].removeprefix(REF)
        for value in node.values():
            yield from refs(value)


def structs(folder):
    """Go's structs: name -> (embedded names, {json name: is a pointer})."""
    found = {}
    for file in sorted(folder.glob("*types*.go")) + sorted(folder.glob("*.go")):
        for name, body in re.findall(r"^type (\w+) struct \{\n(.*?)^\}", file.read_text(), re.S | re.M):
            embedded, fields = [], {}
            for line in body.splitlines():
                line = line.strip()
                if line.startswith("//"):
                    continue
                tag = re.match(r"(?:(\w+)\s+)?([\*\[\]\w\.]+)\s+`.*?json:\"([^\"]*)\"", line)
                if not tag:
                    continue
                json_name, *options = tag.group(3).split(",")
                if "inline" in options or not json_name:
                    embedded.append(tag.group(2).lstrip("*").split(".")[-1])
                else:
                    # A moment that is no pointer is written even if it is none, unless omitzero says otherwise.
                    moment = tag.group(2).split(".")[-1] in ("Time", "MicroTime") and not tag.group(2).startswith("*")
                    left_out = "omitzero" in options or ("omitempty" in options and not moment)
                    fields[json_name] = tag.group(2).startswith("*"), left_out
            found.setdefault(name, (embedded, fields))
    return found


def pointers(found, name):
    """The fields of a struct and of those it embeds."""
    embedded, fields = found.get(name, ([], {}))
    out = dict(fields)
    for inner in embedded:
        out = {**pointers(found, inner), **out}
    return out


def main():
    documents, modules = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    all_types = {}
    for file in sorted(documents.glob("*.json")):
        all_types.update(json.loads(file.read_text())["components"]["schemas"])
    todo = ["io.k8s.api." + root for root in ROOTS] + EXTRA
    out = {}
    while todo:
        name = todo.pop()
        if name in out:
            continue
        # A CRD's schema is looked at by code of its own.
        opaque = name.endswith(".JSONSchemaProps")
        out[name] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True} if opaque else slim(all_types[name])
        todo.extend(refs(out[name]))
    folders = {
        "io.k8s.api.": lambda parts: modules / "api@v0.34.4" / parts[0] / parts[1],
        "io.k8s.apimachinery.pkg.": lambda parts: modules / "apimachinery@v0.34.4" / "pkg" / "/".join(parts[:-1]),
        "io.k8s.apiextensions-apiserver.pkg.": lambda parts:
            modules / "apiextensions-apiserver@v0.34.4" / "pkg" / "/".join(parts[:-1]),
    }
    cache = {}
    for name, schema in out.items():
        for prefix, folder in folders.items():
            if name.startswith(prefix):
                parts = name.removeprefix(prefix).split(".")
                at = folder(parts)
                found = cache.setdefault(at, structs(at))
                known = pointers(found, parts[-1])
                for field, value in schema.get("properties", {}).items():
                    pointer, may_be_absent = known.get(field, (False, True))
                    if field not in known:
                        print(f"{name}.{field}: no Go field", file=sys.stderr)
                    if pointer:
                        value["x-pointer"] = True
                    if not may_be_absent:
                        value["x-always"] = True
    json.dump(dict(sorted(out.items())), sys.stdout, separators=(",", ":"), sort_keys=True)


main()
