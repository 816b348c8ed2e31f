"""Run inside Blender's own window: the panel used as an artist uses it, and what may happen meanwhile.

Arguments after ``--``: the act to play and a JSON object with its values. Each act is a generator; what it yields is
the time in seconds that Blender goes on by itself. The answer is one JSON line.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import inside_blender as inside  # type: ignore[import-not-found]

Act = Iterator[float]
ANSWER: dict[str, Any] = {}
WAIT_S = 90.0


def window() -> Any:
    return bpy.context.window_manager.windows[0]


def editor() -> Any:
    return max(window().screen.areas, key=lambda area: area.width * area.height)


def region(kind: str) -> Any:
    return next(region for region in editor().regions if region.type == kind)


def show_clip(path: str) -> Any:
    """The clip in the editor that fills the screen, its sidebar open."""
    clip = bpy.data.movieclips.load(path)
    area = editor()
    area.type = "CLIP_EDITOR"
    space = area.spaces.active
    space.clip, space.mode, space.show_region_ui = clip, "TRACKING", True
    return clip


def press_tab() -> Act:
    """Our tab is the lowest of the sidebar's."""
    side = region("UI")
    if hasattr(side, "active_panel_category") and bpy.app.version >= (4, 2, 0):
        side.active_panel_category = "Track Everything"
        return
    click(side.x + side.width - 12, side.y + side.height - GIVEN["tab"])
    yield 0.7


def click(x: int, y: int) -> None:
    for kind, value in (("MOUSEMOVE", "NOTHING"), ("LEFTMOUSE", "PRESS"), ("LEFTMOUSE", "RELEASE")):
        window().event_simulate(kind, value, x=x, y=y)


def hover_and_click(x: int, y: int) -> Act:
    """A click without a hover before is lost."""
    window().event_simulate("MOUSEMOVE", "NOTHING", x=x - 3, y=y)
    yield 0.3
    click(x, y)
    yield 0.5


def shoot(name: str) -> None:
    with bpy.context.temp_override(window=window(), screen=window().screen, area=editor()):
        bpy.ops.screen.screenshot(filepath=os.path.join(GIVEN["folder"], f"{name}.png"))


def press(operator: Any, **given: Any) -> None:
    """An operator's button in the sidebar."""
    with bpy.context.temp_override(window=window(), area=editor(), region=region("UI")):
        operator("INVOKE_DEFAULT", **given)


def status() -> Any:
    return bpy.context.window_manager.track_everything


def until(done: Any) -> Act:
    end = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"still {status().text!r} {status().fraction} {status().result!r}")
        yield 0.05


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def start(clip: str, name: str, **given: Any) -> Act:
    """A job of its own run folder, until it makes progress; its process is noted."""
    output = os.path.join(GIVEN["folder"], name)
    press(bpy.ops.omnimotion.track_everything, output=output, **given)
    yield from until(lambda: status().fraction > 0.02)
    ANSWER[f"{name} pid"] = inside.part("running").running_job().pid


# --- acts


def works(clip: str, run: str) -> Act:
    """From the empty panel to tracks, with everything pressed."""
    shown = show_clip(clip)
    yield 1.5
    with bpy.context.temp_override(window=window(), area=editor(), region=region("WINDOW")):
        bpy.ops.clip.view_all(fit_view=True)
    yield from press_tab()
    yield from until(lambda: not inside.part("preferences").checker.running)
    yield 0.5
    shoot("idle")
    bpy.context.scene.track_everything.output = os.path.join(GIVEN["folder"], "pressed")
    bpy.context.scene.track_everything.max_tracks = 40
    side = region("UI")
    slowest = watch()
    yield from hover_and_click(side.x + 110, side.y + side.height - GIVEN["button"])
    ANSWER["running"] = status().running
    if not status().running:
        return
    fractions = []
    shot = False
    previews = 0

    def done() -> bool:
        nonlocal shot, previews
        fractions.append(status().fraction)
        if not shot and "Fitting" in status().text:
            shot = True
            shoot("running")
        if inside.part("overlay")._preview.frame_key is not None:  # drawn
            previews += 1
            if previews == 2:
                shoot("preview")
        return not status().running

    yield from until(done)
    yield 0.5
    ANSWER.update(previewed=previews, preview_left=inside.part("overlay")._preview.points is not None)
    shoot("tracks")
    ANSWER.update(fractions=len(set(fractions)), rising=fractions[:-1] == sorted(fractions[:-1]))
    ANSWER.update(result=status().result, tracks=len(shown.tracking.objects["Track Everything"].tracks))
    ANSWER["slowest"] = max(slowest)
    overlay = bpy.context.window_manager.track_everything_overlay
    bpy.context.scene.frame_set(8)
    overlay.show = True
    yield 0.5
    shoot("overlay")
    # a point picked with the mouse
    press(bpy.ops.omnimotion.track_point)
    yield 0.3
    view = region("WINDOW")
    x, y = view.view2d.view_to_region(0.4, 0.55, clip=False)
    yield from hover_and_click(view.x + x, view.y + y)
    yield from until(lambda: not status().running)
    names = [track.name for track in shown.tracking.objects["Track Everything"].tracks]
    ANSWER.update(picked=names[-1], said=status().result)
    yield 0.3
    shoot("picked")


def watch() -> list[float]:
    """The time of every step of the main thread while a job runs, from now on."""
    running, spent = inside.part("running"), [0.0]
    step, show = running.Runner.step, running.show

    def timed(call: Any) -> Any:
        def run(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = call(*arguments)
            if arguments[0].job is not None:  # the last step writes tracks, when the core is done
                spent.append(time.perf_counter() - began)
            return result

        return run

    running.Runner.step, running.show = timed(step), timed(show)
    return spent


def stops(clip: str, run: str) -> Act:
    """All the ways in which a job ends before its time."""
    show_clip(clip)
    yield 1.0
    yield from start(clip, "escaped")
    view = region("WINDOW")
    window().event_simulate("MOUSEMOVE", "NOTHING", x=view.x + 300, y=view.y + 300)
    yield 0.2
    window().event_simulate("ESC", "PRESS", x=view.x + 300, y=view.y + 300)
    yield from until(lambda: not status().running)
    ANSWER["escaped"] = status().result
    yield from start(clip, "cancelled")
    press(bpy.ops.omnimotion.cancel)
    yield from until(lambda: not status().running)
    ANSWER["cancelled"] = status().result
    yield from start(clip, "killed")
    os.kill(ANSWER["killed pid"], signal.SIGKILL)
    yield from until(lambda: not status().running)
    ANSWER["killed"] = status().result
    yield 0.5
    shoot("killed")
    # renamed, undone, deleted in mid-run
    clip_now = bpy.data.movieclips[0]
    yield from start(clip, "renamed", max_tracks=15)
    with bpy.context.temp_override(window=window(), area=editor(), region=region("WINDOW")):
        clip_now.name = "another name"
        bpy.ops.ed.undo_push(message="renamed")
        bpy.ops.ed.undo_push(message="something else")
        bpy.ops.ed.undo()
    yield from until(lambda: not status().running)
    [clip_now] = bpy.data.movieclips
    ANSWER["renamed"] = [status().result, [one.name for one in clip_now.tracking.objects]]
    yield from start(clip, "deleted", max_tracks=10)
    bpy.data.movieclips.remove(bpy.data.movieclips[0])
    yield from until(lambda: not status().running)
    ANSWER["deleted"] = status().result
    # another file
    show_clip(clip)
    yield 0.5
    yield from start(clip, "loaded")
    bpy.ops.wm.read_homefile(use_empty=True)
    yield 1.0
    ANSWER["loaded"] = [inside.part("running").is_running(), is_gone(ANSWER["loaded pid"])]
    # the add-on switched off
    show_clip(clip)
    yield 1.0
    yield from start(clip, "disabled")
    bpy.ops.preferences.addon_disable(module=inside.MODULE)
    yield 1.0
    ANSWER["disabled"] = is_gone(ANSWER["disabled pid"])


def overlays(clip: str, run: str) -> Act:
    """The overlay alone, in each of its colors."""
    shown = show_clip(clip)
    yield 1.0
    yield from press_tab()
    with bpy.context.temp_override(window=window(), area=editor(), region=region("WINDOW")):
        bpy.ops.clip.view_all(fit_view=True)
    with bpy.context.temp_override(window=window(), area=editor(), region=region("UI")):
        bpy.ops.omnimotion.import_run(directory=run)
    shown.tracking.objects.active = shown.tracking.objects["Camera"]  # tracks of the other object are not drawn
    bpy.context.scene.frame_set(8)
    yield 0.5
    shoot("without")
    overlay = bpy.context.window_manager.track_everything_overlay
    overlay.show = True
    for color_by in ("MOTION", "CONFIDENCE", "DEPTH"):
        overlay.color_by = color_by
        yield 0.5
        shoot(color_by.lower())
    overlay.opacity = 0.1
    yield 0.5
    shoot("faint")
    bpy.context.scene.frame_set(99)  # beyond the clip nothing is drawn, and nothing breaks
    yield 0.3
    ANSWER["problem"] = inside.part("overlay")._cache.problem


def redraws(clip: str, run: str) -> Act:
    """Milliseconds of a redraw of the editor, empty and with 500 tracks as they are imported."""
    shown = show_clip(clip)
    yield 1.0
    with bpy.context.temp_override(window=window(), area=editor(), region=region("WINDOW")):
        bpy.ops.clip.view_all(fit_view=True)
    yield 0.5

    def redraw() -> float:
        with bpy.context.temp_override(window=window(), area=editor(), region=region("WINDOW")):
            began = time.process_time()
            bpy.ops.wm.redraw_timer(type="DRAW", iterations=10)
            return (time.process_time() - began) * 100

    redraw()
    ANSWER["empty"] = redraw()
    with bpy.context.temp_override(window=window(), area=editor(), region=region("UI")):
        bpy.ops.omnimotion.import_run(directory=run)
    ANSWER["tracks"] = len(shown.tracking.objects["Track Everything"].tracks)
    yield 0.3
    redraw()
    ANSWER["full"] = redraw()
    shoot("many")


def play(act: Act) -> "float | None":
    """Blender's timer: one step."""
    try:
        return next(act)
    except StopIteration:
        print("ANSWER " + json.dumps(ANSWER), flush=True)
    except Exception:  # noqa: BLE001 - without an end the window stays open until the test's timeout
        traceback.print_exc()
        print("ANSWER " + json.dumps({**ANSWER, "error": traceback.format_exc()}), flush=True)
    sys.stdout.flush()
    inside.part("running").end()
    os._exit(0)


def main() -> None:
    global GIVEN
    name, GIVEN = sys.argv[-2], json.loads(sys.argv[-1])
    inside.GIVEN, inside.MODULE = GIVEN, inside.install(GIVEN["zip"])
    inside.preferences().python = GIVEN["core"]
    inside.be_quick(GIVEN["settings"])
    bpy.context.preferences.view.show_splash = False
    act = globals()[name](GIVEN["clip"], GIVEN["run"])
    bpy.app.timers.register(lambda: play(act), first_interval=0.5, persistent=True)


GIVEN: dict[str, Any] = {}

if __name__ == "__main__":
    main()
