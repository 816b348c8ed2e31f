"""A program that speaks the core's lines as it is told to, in place of the core where a test needs a certain ending.

Arguments: what to do, one after another.
"""

import json
import os
import signal
import subprocess
import sys
import time


def say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def main() -> None:
    for act in sys.argv[1:]:
        name, _, value = act.partition("=")
        if name == "started":
            say("started", protocol=int(value or 1), version="0")
        elif name == "stage":
            say("stage", stage=value, index=1, count=4)
        elif name == "progress":
            say("progress", stage="fit", done=int(value), total=100)
        elif name == "warning":
            say("warning", message=value)
        elif name == "artifact":
            say("artifact", kind="markers", path=value)
        elif name == "finished":
            say("finished", seconds=1.0)
        elif name == "error":
            say("error", problem=value, remedy="mend it")
        elif name == "print":
            print(value, flush=True)
        elif name == "log":
            print(value, file=sys.stderr, flush=True)
        elif name == "bytes":
            sys.stdout.buffer.write(bytes.fromhex(value) + b"\n")
            sys.stdout.flush()
        elif name == "obey":  # as the core does: until a line or the end of standard input
            sys.stdin.readline()
            say("cancelled", resumable=True)
        elif name == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say("stage", stage="deaf", index=0, count=1)
            time.sleep(60)
        elif name == "die":
            os.kill(os.getpid(), int(value))
        elif name == "child":  # holds our pipes after we are gone
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6)"])
        elif name == "environment":
            say("note", message=json.dumps(dict(os.environ)))
        elif name == "exit":
            sys.exit(int(value))


if __name__ == "__main__":
    main()
