# SPDX-License-Identifier: GPL-3.0-or-later
"""Passes for Blender's compositor: written by the core, and the nodes that read them, in every version's way."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty

from .footage import ClipReference, Footage, examine, shown_clip
from .job import Job
from .markers import require_run, require_same_footage
from .preferences import require_core
from .properties import SETUPS
from .running import ButtonJob, Task
from .steps import RunFacts, export_step, read_run

_TAG = "track_everything"  # on nodes that are ours
_KINDS = {"VECTOR_BLUR": ("vectors:blender", "blender"), "DISPLACE": ("vectors:blender", "blender"),
          "MAP_UV": ("stmap", "stmap")}  # fmt: skip  # what the core is asked for, and its folder in exr/


class ExportVectors(ButtonJob, bpy.types.Operator):
    """Write the passes that the chosen setup needs, as EXR files into the run's folder"""

    bl_idname = "omnimotion.export_vectors"
    bl_label = "Write Passes"

    clip: StringProperty(name="Clip", description="Name of the clip; empty: the one that is shown")
    kind: StringProperty(name="Kind", description="As `omnimotion export --to` takes it; empty: what the setup needs")

    def _start(self, context: "bpy.types.Context", begin: Any) -> set[str]:
        settings = context.scene.track_everything
        try:
            clip = shown_clip(context, self.clip)
            run = require_run(clip)
        except LookupError as error:
            self.report({"ERROR"}, str(error.args[0]))
            return {"CANCELLED"}
        kind, device = self.kind or _KINDS[settings.setup][0], settings.device
        name = ClipReference.of(clip).name

        def start() -> Job:
            return Job(name, [export_step(require_core(bpy.context), run, kind, device)])

        def done(job: Job) -> str:
            return f"{kind} is in {job.artifacts.get(kind, run)}"

        result: set[str] = begin(context, [Task(name, start, done)])
        return result


class SetupCompositor(bpy.types.Operator):
    """Build the compositor's nodes for the clip and its passes"""

    bl_idname = "omnimotion.setup_compositor"
    bl_label = "Set Up Compositor"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    clip: StringProperty(name="Clip", options={"HIDDEN"})
    setup: EnumProperty(name="Setup", items=SETUPS)
    match_scene: BoolProperty(
        name="Match Scene", description="Give the scene the clip's size, which the vectors are measured in",
        default=True,
    )  # fmt: skip

    def invoke(self, context: "bpy.types.Context", event: "bpy.types.Event") -> set[str]:
        """The button: takes the panel's choice."""
        self.setup = context.scene.track_everything.setup
        return self.execute(context)

    def execute(self, context: "bpy.types.Context") -> set[str]:
        """Build them."""
        try:
            clip = shown_clip(context, self.clip)
            run = read_run(require_run(clip))
            footage = examine(clip)
            require_same_footage(clip, footage, run)
            passes = find_passes(run, self.setup)
        except LookupError as error:
            self.report({"ERROR"}, str(error.args[0]))
            return {"CANCELLED"}
        scene = context.scene
        if self.match_scene:
            scene.render.resolution_x, scene.render.resolution_y = footage.size
            scene.render.resolution_percentage = 100
            scene.render.pixel_aspect_x, scene.render.pixel_aspect_y = 1.0, 1.0
        shown = build(scene, clip, footage, run, passes, self.setup)
        self.report({"INFO"}, "The compositor shows it" if shown else
                    "The nodes are there; the output is in use, so that it was left as it is")  # fmt: skip
        return {"FINISHED"}


@dataclass(frozen=True)
class Passes:
    """The files of a kind, one a tracked frame, in order."""

    files: "list[Path]"
    reference: int  # of STMaps: the source's number of the frame whose picture they pull


def find_passes(run: RunFacts, setup: str) -> Passes:
    """The run's files that a setup reads.

    Raises:
        LookupError: they are not all there; told in one line.
    """
    kind, folder = _KINDS[setup]
    # STMaps have the reference's number before the frame's; those that lead "to" the reference are not ours
    pattern = r"\.stmap\.from_(-?\d+)\.(-?\d+)\.exr$" if setup == "MAP_UV" else r"()\.(-?\d+)\.exr$"
    found: dict[str, dict[int, Path]] = {}
    for path in sorted((run.path / "exr" / folder).glob("*.exr")):
        match = re.search(pattern, path.name)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = path
    best = max(found, key=lambda reference: len(found[reference]), default="")
    missing = [number for number in run.numbers if number not in found.get(best, {})]
    if missing:
        raise LookupError(f"{len(missing)} of {run.num_frames} files of {kind} are not written; press Write Passes")
    return Passes([found[best][number] for number in run.numbers], int(best or run.first_number))


def build(
    scene: "bpy.types.Scene", clip: "bpy.types.MovieClip", footage: Footage, run: RunFacts, passes: Passes, setup: str,
) -> bool:  # fmt: skip
    """Build the nodes, in place of those that were built before; whether the output shows them."""
    tree, output = compositor(scene)
    for node in [node for node in tree.nodes if node.get(_TAG)]:
        tree.nodes.remove(node)
    nodes = _Builder(tree)
    plate = nodes.new("CompositorNodeMovieClip", (-600, 200), "Clip")
    plate.clip = clip
    data = nodes.new("CompositorNodeImage", (-600, -200), "Passes")
    load_sequence(data, footage, run, passes.files)
    if setup == "VECTOR_BLUR":
        node = nodes.new("CompositorNodeVecBlur", (-200, 100), "Motion Blur")
        nodes.link(plate.outputs["Image"], node.inputs["Image"])
        nodes.link(data.outputs["Vector"], node.inputs["Speed"])
        set_shutter(node, 1.0)
    elif setup == "DISPLACE":
        node = nodes.new("CompositorNodeDisplace", (-200, 100), "To the Frame Before")
        nodes.link(plate.outputs["Image"], node.inputs["Image"])
        nodes.link(data.outputs["Vector"], node.inputs.get("Displacement") or node.inputs["Vector"])
        for name in ("X Scale", "Y Scale"):  # up to 4.5
            if name in node.inputs:
                node.inputs[name].default_value = 1.0
    else:
        picture = nodes.new("CompositorNodeImage", (-600, -550), "Picture at the Reference Frame")
        if footage.is_sequence:
            picture.image = bpy.data.images.load(_frame_file(footage, passes.reference), check_existing=True)
        mapped = nodes.new("CompositorNodeMapUV", (-200, -200), "Follow")
        nodes.link(picture.outputs["Image"], mapped.inputs["Image"])
        nodes.link(_map_socket(nodes, data), mapped.inputs["UV"])
        node = nodes.new("CompositorNodeAlphaOver", (100, 100), "Over the Clip")
        under, over = alpha_over(node)
        nodes.link(plate.outputs["Image"], under)
        nodes.link(mapped.outputs["Image"], over)
    return _connect(tree, output, node.outputs["Image"])


def compositor(scene: "bpy.types.Scene") -> "tuple[Any, Any]":
    """The scene's compositor tree and its output node, made where they are absent, in this version's way."""
    if bpy.app.version >= (5, 0, 0):
        tree = scene.compositing_node_group
        if tree is None:
            tree = scene.compositing_node_group = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        if not any(getattr(item, "in_out", "") == "OUTPUT" for item in tree.interface.items_tree):
            tree.interface.new_socket(name="Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        kind = "NodeGroupOutput"
    else:
        scene.use_nodes = True
        tree, kind = scene.node_tree, "CompositorNodeComposite"
    scene.render.use_compositing = True
    output = next((node for node in tree.nodes if node.bl_idname == kind), None)
    if output is None:
        output = tree.nodes.new(kind)
        output.location = (450, 100)
    return tree, output


def load_sequence(node: "bpy.types.Node", footage: Footage, run: RunFacts, passes: "list[Path]") -> None:
    """The files of a run in an Image node, each at the scene frame that shows its frame of the clip.

    Blender shows file ``scene frame - frame_start + 1 + frame_offset``; the number in the loaded name does not count.
    """
    image = bpy.data.images.load(str(passes[0]), check_existing=True)
    image.source = "SEQUENCE"
    if image.type != "MULTILAYER":
        image.colorspace_settings.name = "Non-Color"
    node.image = image
    first = footage.clip_frame(run.shown_at.get(run.first_number, run.first_number)) + footage.frame_start - 1
    node.frame_start, node.frame_duration = first, len(passes)
    node.frame_offset = run.first_number - 1
    node.use_auto_refresh = True


def set_shutter(node: "bpy.types.Node", shutter: float) -> None:
    """Vector Blur's length as a share of the frame's motion, alike in all versions; 1.0 smears by half to each side."""
    if "Shutter" in node.inputs:  # since 4.5
        node.inputs["Shutter"].default_value = shutter
        node.inputs["Samples"].default_value = 64
        return
    # 4.2 to 4.4 smear by the whole motion to each side at factor 1
    node.factor = shutter * (0.5 if bpy.app.version >= (4, 2, 0) else 1.0)
    node.samples = 64


def alpha_over(node: "bpy.types.Node") -> "tuple[Any, Any]":
    """The sockets of Alpha Over for what lies under and what lies over."""
    named = node.inputs.get("Background"), node.inputs.get("Foreground")  # since 5.0
    if named[0] is not None and named[1] is not None:
        return named
    images = [socket for socket in node.inputs if socket.type == "RGBA"]
    return images[0], images[1]


def _map_socket(nodes: "_Builder", data: "bpy.types.Node") -> Any:
    """U, V and alpha as Map UV wants them, in its three channels; an STMap has its alpha in the fourth."""
    color = next(socket for socket in data.outputs if socket.enabled and socket.name in ("Combined", "Image"))
    apart = nodes.new("CompositorNodeSeparateColor", (-420, -330), "U, V, Alpha")
    joined = nodes.new("CompositorNodeCombineColor", (-310, -330), "Map")
    nodes.link(color, apart.inputs[0])
    for source, target in ((0, 0), (1, 1), (3, 2)):
        nodes.link(apart.outputs[source], joined.inputs[target])
    return joined.outputs[0]


def _frame_file(footage: Footage, number: int) -> str:
    """The path of a frame of a sequence."""
    folder, name = Path(footage.path).parent, Path(footage.path).name
    stem, suffix = name[: -len(Path(name).suffix)], Path(name).suffix
    digits = list(re.finditer(r"\d+", stem))[-1]
    return str(folder / f"{stem[: digits.start()]}{number:0{len(digits[0])}d}{stem[digits.end() :]}{suffix}")


def _connect(tree: Any, output: Any, socket: Any) -> bool:
    """Show a socket at the output, unless something of the user's own is shown there; viewers likewise."""
    viewers = [node for node in tree.nodes if node.bl_idname == "CompositorNodeViewer"]
    free = {node: _is_free(tree, node.inputs[0]) for node in (output, *viewers)}
    for node, may in free.items():
        if may:
            tree.links.new(socket, node.inputs[0])
    return free[output]


def _is_free(tree: Any, target: Any) -> bool:
    """Whether a socket shows nothing, our nodes, or the scene's render as every new scene does."""
    for link in tree.links:
        if link.to_socket == target:
            source = link.from_node
            if source.bl_idname == "NodeReroute":  # 4.5 puts one into every new tree
                return _is_free(tree, source.inputs[0])
            return bool(source.get(_TAG)) or source.bl_idname == "CompositorNodeRLayers"
    return True


class _Builder:
    """Makes nodes that are marked as ours."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def new(self, kind: str, place: "tuple[int, int]", label: str) -> Any:
        """A node."""
        node = self.tree.nodes.new(kind)
        node.location, node.label = place, label
        node[_TAG] = True
        return node

    def link(self, source: Any, target: Any) -> None:
        """A link."""
        self.tree.links.new(source, target)


_CLASSES = (ExportVectors, SetupCompositor)


def register() -> None:
    """Both operators."""
    for one in _CLASSES:
        bpy.utils.register_class(one)


def unregister() -> None:
    """Take them back."""
    for one in reversed(_CLASSES):
        bpy.utils.unregister_class(one)
