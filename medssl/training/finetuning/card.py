"""The model card: what a bundle is, from the facts of its run (Mitchell et al., "Model cards for model reporting", 2019)."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medssl.data.dataset import Case
from medssl.evaluation.intervals import wilson
from medssl.models.bundle import Bundle

_FEW = 10


def data_facts(**parts: Sequence[Case]) -> dict[str, object]:
    """Patients, scans, sites and classes of each part of the data, by the name of the part."""
    return {name: _counted(cases) for name, cases in parts.items()}


def _counted(cases: Sequence[Case]) -> dict[str, object]:
    return {
        "patients": len({case.row.patient for case in cases}),
        "scans": len(cases),
        "classes": dict(sorted(Counter(_class_of(case) for case in cases).items())),
        "sites": dict(sorted(Counter(case.row.site or "not known" for case in cases).items())),
    }


def _class_of(case: Case) -> str:
    if case.row.label:
        return case.row.label
    if len(case.lesion_slices) or case.label == 1:
        return "with lesion"
    return "without lesion" if case.known or case.label == 0 else "not known"


def card(bundle: Bundle) -> str:
    """The model card of a lesion network, as Markdown."""
    parts = {
        "What it is": _identity(bundle),
        "Data": _data(bundle),
        "Weights that were kept": _selection(bundle),
        "Locked thresholds": _points(bundle),
        "Calibration": _calibration(bundle),
        "Limits": _limits(bundle),
    }
    sections = [f"## {title}\n\n" + "\n".join(lines) + "\n" for title, found in parts.items() if (lines := list(found))]
    return "\n".join([f"# Lesion {bundle.kind}\n\nResearch use only; not a medical device.\n", *sections])


def _identity(bundle: Bundle) -> Iterator[str]:
    facts = bundle.training
    recipe = _mapping(facts.get("config"))
    yield f"- network: {bundle.architecture.class_path.rpartition('.')[2]}; positive means: {', '.join(bundle.class_names) or 'any lesion'}"
    yield f"- started from {f'encoder {bundle.lineage[0]}' if bundle.lineage else 'random weights (from scratch)'}"
    if len(bundle.lineage) > 1:
        yield f"- earlier bundles of its lineage: {', '.join(bundle.lineage[1:])}"
    folds = _mapping(facts.get("folds"))
    members = f", the mean of {folds['count']} members from folds by {folds['by']}" if folds else ""
    yield f"- trained on {facts['scans']} scans of {facts['patients']} patients, {facts['steps']} steps, seed {facts['seed']}{members}"
    adapted, each = facts.get("adapted"), facts.get("members")
    yield from (f"- adapted: {what}" for what in (adapted if isinstance(adapted, list) else ()))
    if isinstance(each, list):
        yield from (f"- fold {number}: {line}" for number, one in enumerate(each) for line in _member(one))
    else:
        yield from (f"- {line}" for line in _tuning(facts))
    if recipe.get("loss") is not None:
        yield f"- loss: {_inline(recipe['loss'])}"
    window = bundle.window
    yield f"- looks at windows of {list(window.size)} voxels, {window.context} slices each, mirrored along axes {list(window.mirrored)}"
    yield f"- configuration {facts.get('config_hash')}, data {str(facts.get('manifest_hash'))[:12]}, finished {facts.get('finished')}"


def _member(facts: Mapping[str, object]) -> Iterator[str]:
    """What one fold learned from, and how."""
    yield f"trained on {facts['scans']} scans of {facts['patients']} patients"
    yield from _tuning(facts)


def _tuning(facts: Mapping[str, object]) -> Iterator[str]:
    """Which weights learned, and why."""
    protocol, advice = _mapping(facts.get("protocol")), _mapping(facts.get("advice"))
    if protocol:
        numbers = ", ".join(f"{name} {_inline(value)}" for name, value in protocol.items() if name != "name")
        yield f"protocol {protocol['name']}{f' ({numbers})' if numbers else ''}"
    if advice:
        yield f"this protocol was proposed: {advice['reason']}"


def _inline(value: object) -> str:
    """A setting in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_inline(part)}" for name, part in value.items() if part is not None)
    return ", ".join(map(_inline, value)) if isinstance(value, list | tuple) else str(value)


def _data(bundle: Bundle) -> Iterator[str]:
    parts = _mapping(bundle.training.get("data"))
    if not parts:
        return
    yield "| part | patients | scans | classes | sites |\n|---|---|---|---|---|"
    for name, part in parts.items():
        yield f"| {name.replace('_', ' ')} | {part['patients']} | {part['scans']} | {_inline(part['classes'])} | {_inline(part['sites'])} |"


def _selection(bundle: Bundle) -> Iterator[str]:
    facts = bundle.training.get("selection")
    found = [_mapping(one) for one in (facts if isinstance(facts, list) else [facts])]
    for number, one in enumerate(found):
        name = f"fold {number}: " if len(found) > 1 else ""
        if one.get("average") is not None:
            yield f"- {name}moving average of the weights, decay {one['average']}"
        if "metric" in one:
            yield f"- {name}best {one['metric']} of {one['scans']} validation scans: {one['value']:.4f} after {one['step']} steps"
            yield f"- {name}{one['metric']} by step: " + ", ".join(f"{look['step']}: {look['value']:.4f}" for look in one["looks"])
    if not any(found):
        yield "Those of the last step."


def _points(bundle: Bundle) -> Iterator[str]:
    yield "| unit | threshold | rule | chosen on | sensitivity there | specificity there |\n|---|---|---|---|---|---|"
    for unit, point in bundle.operating_points.items():
        counted = {"voxel": "scan"}.get(unit, "slice" if str(point["rule"]).startswith("that of slices") else unit)
        on = f"{point['chosen_on']}, {point['n']} {counted}s"
        rates = (f"mean Dice {_number(point['dice'])}", "") if "dice" in point else _rates(point)
        yield f"| {unit} | {_number(point['threshold'])} | {point['rule']} | {on} | {rates[0]} | {rates[1]} |"
    yield from _parts(bundle.operating_points.get("voxel", {}))
    yield (
        "\nBrackets hold Wilson's 95 % interval, which takes units as independent; slices of one patient are not. The thresholds were "
        "chosen on these units, so that rates there are a little too good."
    )


def _parts(point: Mapping[str, Any]) -> Iterator[str]:
    """Which parts of a mask do not count, and what that costs in lesions."""
    if point.get("min_voxels", 1) <= 1 and not point.get("min_share"):
        return
    sizes = [f"{point['min_voxels']} voxels of the network's grid"] if point.get("min_voxels", 1) > 1 else []
    sizes += [f"{point['min_share']:.0%} of the largest part of the scan"] if point.get("min_share") else []
    touched, by_any = (point.get(name, "not known") for name in ("lesions_touched", "lesions_touched_by_any_part"))
    yield (
        f"\nParts of a mask below {', or below '.join(sizes)}, are left out. On the scans that this was chosen on, {touched} lesions are "
        f"touched so, and {by_any} with every part."
    )


def _rates(point: Mapping[str, Any]) -> tuple[str, str]:
    positives = int(point["n_positive"])
    if "fp_per_scan" in point:
        return _rate(point["sensitivity"], positives), f"{point['fp_per_scan']:.2f} false positives a scan"
    return _rate(point["sensitivity"], positives), _rate(point["specificity"], int(point["n"]) - positives)


def _rate(value: float | None, n: int) -> str:
    if value is None:
        return "not known"
    k = round(value * n)
    low, high = wilson(k, n)
    return f"{value:.3f} ({k} of {n}) [{low:.3f}, {high:.3f}]"


def _calibration(bundle: Bundle) -> Iterator[str]:
    for unit, one in bundle.calibration.items():
        if one["note"]:
            yield f"- {unit}: scores as they are; a temperature was {one['note']}"
            continue
        loss = "cross entropy of classes" if one.get("of") == "classes" else "cross entropy"
        yield (
            f"- {unit}: temperature {_number(one['temperature'])} from {one['n']} {one['unit']}s, {one['n_positive']} of them positive; "
            f"{loss} {_number(one['loss_before'])} before, {_number(one['loss_after'])} after"
        )


def _limits(bundle: Bundle) -> Iterator[str]:
    facts = bundle.training
    scan = bundle.operating_points.get("scan", {})
    positives, n = int(str(scan.get("n_positive", 0))), int(str(scan.get("n", 0)))
    if min(positives, n - positives) < _FEW:
        yield f"- The threshold of scans rests on {positives} units with lesion and {n - positives} without: it may lie elsewhere."
    if facts.get("folds"):
        yield "- The thresholds come from scores of single members; the mean of all members may be a little better than they."
    sites = {site for part in _mapping(facts.get("data")).values() for site in part["sites"]} - {"not known"}
    if len(sites) < 2:
        yield f"- The data name {len(sites)} sites: nothing is known of other scanners."
    yield "- Measured performance is in the report of `medssl evaluate`, or of `medssl report` on the out-of-fold results of folds."
    yield "- Scans of other scanners, sequences, ages or diseases than those it was trained on may be scored wrongly."


def _number(value: object) -> str:
    return f"{float(str(value)):.4g}"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
