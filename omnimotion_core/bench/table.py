"""What was measured as one table, and its growth below it."""

from omnimotion_core.bench.measure import PLATE, Report

COLUMNS = {  # of a clip: name, and how it is headed
    "num_frames": "frames", "side": "side px", "prepare_s": "prepare s", "flow_s": "flow s", "num_pairs": "pairs",
    "pair_s": "s/pair", "start_s": "fit start s", "step_ms": "ms/step", "match_us": "µs/match", "fit_s": "whole fit s",
    "flop_share": "FLOP peak", "byte_share": "bytes peak", "query_us": "query µs", "dense_us": "dense µs/px",
    "peak_memory_mb": "peak MB",
}  # fmt: skip
SHARES = ("flop_share", "byte_share")
GROWN = {  # of the growth: name, and how it is headed
    "prepare_s": "prepare", "flow_s": "flow", "num_pairs": "pairs", "step_ms": "step", "query_s": "query",
    "dense_s": "dense", "memory_mb": "memory",
}  # fmt: skip


def format_value(name: str, value: float) -> str:
    """A figure as the table shows it: three digits, counts whole, shares in percent."""
    if isinstance(value, int):
        return str(value)
    if name in SHARES:
        return f"{100 * value:.3g}%"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def format_report(report: Report) -> str:
    """The machine, a line for each clip, what was asked of one, and the exponents."""
    told, machine, model = report.to_dict(), report.machine, report.model
    clips = [[format_value(name, clip[name]) for name in COLUMNS] for clip in told["clips"]]
    growth = [
        [f"over {over}", *(f"{exponents[name]:.2f}" if name in exponents else "" for name in GROWN)]
        for over, exponents in told["growth"].items()
    ]
    questions = ", ".join(f"{count} points {format_value('', took)} s" for count, took in report.questions.items())
    return "\n".join([
        f"{machine['type']} ({machine['name']}), {machine['threads']} threads: product of matrices "
        f"{format_value('', machine['gflops'])} GFLOP/s, copy {format_value('', machine['copy_gb_s'])} GB/s, libraries "
        f"{format_value('', machine['libraries_mb'])} MB",
        f"a match of a step, {model['layers']} layers: {model['flop_per_match']} FLOP, {model['bytes_per_match']} "
        f"bytes; {model['batch']} matches a step",
        "",
        *_aligned([list(COLUMNS.values()), *clips]),
        "",
        f"whole fit: reckoned for {model['steps']} steps from {model['steps_timed']} that were timed; query: for a "
        "point and frame",
        f"query of the first clip: {questions}",
        f"dense flow of a pair of frames of {PLATE[0]}x{PLATE[1]}: {format_value('', report.plate_s)} s",
        "",
        *_aligned([["exponents", *GROWN.values()], *growth]),
    ])  # fmt: skip


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
