#!/usr/bin/env python3
"""Speaks like the agent program whose name it has, and refuses what that refuses.

What it does stands in the prompt as `scenario=NAME`. With STUB_STARTS each start is a line of that file: the arguments,
the prompt and the variables as JSON.
"""
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid

NAME = os.path.basename(sys.argv[0])
ARGS = sys.argv[1:]
ANSWER = "The file is made, and the tests pass."
RESETS = 4102444800
LIMIT = {
    "claude": "You've hit your session limit · resets 3am (Europe/Paris)",
    "codex": "You've hit your usage limit. Upgrade to Pro or try again in 2 hours 5 minutes.",
    "gemini": "You have exhausted your capacity on this model. Your quota will reset after 2h5m0s.",
    "copilot": "Sorry, you've hit a rate limit. Please try again in 2 hours 5 minutes.",
}[NAME]
OUTAGE = {
    "claude": "API Error: 529 Overloaded",
    "codex": "We're currently experiencing high demand, which may cause temporary errors.",
    "gemini": "API Error: 503 Service Unavailable",
    "copilot": "Error: 502 Bad Gateway",
}[NAME]
ACCOUNT = "Credit balance is too low"
FLAGS = {
    "claude": {"-p", "--output-format", "--verbose", "--permission-mode", "--allowedTools", "--session-id", "--model"},
    "codex": {"--json", "--sandbox", "--skip-git-repo-check", "--model"},
    "gemini": {"--output-format", "--approval-mode", "--skip-trust", "--allowed-tools", "--model"},
    "copilot": {"-s", "--output-format", "--no-ask-user", "--session-id", "--allow-tool", "--allow-all", "--autopilot", "--model"},
}[NAME]


def refuse(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)


def value(flag):
    found = [arg.split("=", 1)[1] for arg in ARGS if arg.startswith(flag + "=")]
    return found[-1] if found else None


def check_arguments():
    flags = list(ARGS)
    if NAME == "codex":
        if flags[:1] != ["exec"] or flags[-1:] != ["-"]:
            refuse(2, "error: the following required arguments were not provided")
        flags = flags[1:-1]
    for flag in flags:
        if flag.split("=")[0] not in FLAGS:
            refuse(2 if NAME == "codex" else 1, f"error: unknown option '{flag}'")
    if NAME == "claude":
        if value("--output-format") == "stream-json" and "--verbose" not in ARGS:
            refuse(1, "Error: When using --print, --output-format=stream-json requires --verbose")
        if value("--permission-mode") == "bypassPermissions" and os.geteuid() == 0:
            refuse(1, "--dangerously-skip-permissions cannot be used with root/sudo privileges for security reasons")
    if NAME == "codex" and "--skip-git-repo-check" not in ARGS:
        refuse(1, "Not inside a trusted directory and --skip-git-repo-check was not specified.")
    if NAME == "gemini" and "--skip-trust" not in ARGS:
        refuse(55, "The directory is not trusted.")
    if NAME in ("claude", "copilot"):
        try:
            uuid.UUID(value("--session-id") or "")
        except ValueError:
            refuse(1, "Error: Invalid session ID. Must be a valid UUID.")


def say(**event):
    print(json.dumps(event), flush=True)


SESSION = value("--session-id") or str(uuid.uuid4())
USAGE = {"input_tokens": 10, "output_tokens": 30, "cache_creation_input_tokens": 60, "cache_read_input_tokens": 900}


def begin():
    if NAME == "claude":
        say(type="system", subtype="init", session_id=SESSION, cwd=os.getcwd(), tools=["Edit", "Bash"])
        text = {"type": "text", "text": "I look around."}
        say(type="assistant", session_id=SESSION, message={"id": "m1", "content": [text], "usage": USAGE})
    elif NAME == "codex":
        say(type="thread.started", thread_id=SESSION)
        say(type="turn.started")
        say(type="item.completed", item={"id": "i0", "type": "agent_message", "text": "I look around."})
    elif NAME == "gemini":
        say(type="init", session_id=SESSION, model="m")
        say(type="message", role="user", content="…")
        say(type="message", role="assistant", content="I look around.", delta=True)
    else:
        say(type="assistant.message", data={"content": "I look around."})


def edit():
    path = os.path.join(os.getcwd(), "made.txt")
    if NAME == "claude":
        use = {"type": "tool_use", "id": "t1", "name": "Edit", "input": {"file_path": path}}
        say(type="assistant", session_id=SESSION, message={"id": "m1", "content": [use], "usage": USAGE})
    elif NAME == "codex":
        change = {"id": "i1", "type": "file_change", "changes": [{"path": path, "kind": "add"}], "status": "completed"}
        say(type="item.completed", item=change)
    elif NAME == "gemini":
        say(type="tool_use", tool_name="write_file", tool_id="t1", parameters={"file_path": path})
        say(type="tool_result", tool_id="t1", status="success")
    else:
        say(type="tool.execution_start", data={"toolCallId": "t1", "toolName": "create", "arguments": {"path": path}})
        say(type="tool.execution_complete", data={"toolCallId": "t1", "success": True})
    with open(path, "a", encoding="utf-8") as made:
        made.write("made\n")


def be_denied():
    if NAME == "gemini":
        say(type="tool_use", tool_name="run_shell_command", tool_id="t2", parameters={"command": "curl x"})
        say(type="tool_result", tool_id="t2", status="error", error={"type": "denied", "message": "Denied by policy"})
    elif NAME == "copilot":
        say(type="tool.execution_start", data={"toolCallId": "t2", "toolName": "bash", "arguments": {"command": "curl x"}})
        say(type="tool.execution_complete", data={"toolCallId": "t2", "success": False, "error": {"code": "denied"}})


def good(answer=ANSWER, denied=()):
    if NAME == "claude":
        say(type="result", subtype="success", is_error=False, result=answer, session_id=SESSION, total_cost_usd=0.25,
            usage=USAGE, terminal_reason="completed", permission_denials=[{"tool_name": tool} for tool in denied])
    elif NAME == "codex":
        say(type="item.completed", item={"id": "i9", "type": "agent_message", "text": answer})
        say(type="turn.completed", usage={"input_tokens": 970, "cached_input_tokens": 900, "output_tokens": 30})
    elif NAME == "gemini":
        say(type="message", role="assistant", content=answer[:4], delta=True)
        say(type="message", role="assistant", content=answer[4:], delta=True)
        say(type="result", status="success", stats={"total_tokens": 1000, "input_tokens": 970, "output_tokens": 30, "cached": 900})
    else:
        say(type="assistant.message", data={"content": answer})
        say(type="result", sessionId=SESSION, exitCode=0, usage={"premiumRequests": 1})


def bad(text):
    if NAME == "claude":
        say(type="result", subtype="success", is_error=True, result=text, session_id=SESSION, total_cost_usd=0.25, usage=USAGE)
    elif NAME == "codex":
        say(type="turn.failed", error={"message": text})
    elif NAME == "gemini":
        say(type="result", status="error", error={"type": "Error", "message": text})
    else:
        say(type="session.error", data={"errorType": "query", "message": text})
        say(type="result", sessionId=SESSION, exitCode=1)


def limit_by_event():
    if NAME == "claude":
        info = {"status": "rejected", "resetsAt": RESETS, "rateLimitType": "five_hour"}
        say(type="rate_limit_event", rate_limit_info=info, session_id=SESSION)
        bad("You've reached it.")
    elif NAME == "copilot":
        say(type="session.error", data={"errorType": "rate_limit", "message": "Not now."})
        say(type="result", sessionId=SESSION, exitCode=1)
    else:
        say(type="turn.completed", usage={"input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0})


def noise():
    say(type="not.known.yet", data={"deep": [[{"a": None}]]})
    print("a warning on the standard output")
    sys.stdout.flush()
    sys.stdout.buffer.write(b'{"type":"odd","nul":"\\u0000","lone":"\\ud800 \xff\x00"}\n')
    big = "x" * 1_000_000
    sys.stdout.write('{"type":"huge","text":"')
    for _ in range(30):
        sys.stdout.write(big)
    sys.stdout.write('"}\n')
    sys.stdout.flush()


def obey(prompt):
    """Runs each line of the prompt that begins with `run: `; what came of it is a line of STUB_OBEYED."""
    for command in re.findall(r"^run: (.*)$", prompt, re.M):
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        with open(os.environ["STUB_OBEYED"], "a", encoding="utf-8") as obeyed:
            line = {"command": command, "code": done.returncode, "out": done.stdout, "err": done.stderr}
            obeyed.write(json.dumps(line) + "\n")


def wait_for_ever():
    while True:
        signal.pause()


def main():
    if "--version" in ARGS:
        print("9.9.9 (stub)")
        return 0
    check_arguments()
    prompt = sys.stdin.read()
    if not prompt.strip():
        refuse(42 if NAME == "gemini" else 1, "Error: Input must be provided through stdin")
    if "STUB_STARTS" in os.environ:
        with open(os.environ["STUB_STARTS"], "a", encoding="utf-8") as starts:
            starts.write(json.dumps({"name": NAME, "args": ARGS, "prompt": prompt, "env": dict(os.environ)}) + "\n")
    found = re.search(r"scenario=([a-z-]+)", prompt)
    scenario = found.group(1) if found else "success"
    if scenario == "limit-by-text-only":
        print(LIMIT, file=sys.stderr)
        return 1
    if scenario == "limit-by-event" and NAME == "codex":
        say(type="thread.started", thread_id=SESSION)
        say(type="turn.started")
    elif scenario != "stderr-only":
        begin()
    if scenario == "slow":
        for _ in range(8):
            time.sleep(0.5)
            begin()
    if scenario in ("success", "exit-one", "hang", "noise", "mentions-a-limit", "slow"):
        edit()
    if scenario == "noise":
        noise()
    if scenario == "obey":
        obey(prompt)
    if scenario in ("success", "exit-one", "hang", "noise", "slow", "obey"):
        good()
    elif scenario == "mentions-a-limit":
        good("The test expects: " + LIMIT)
    elif scenario == "is-error":
        bad("It fell over.")
    elif scenario == "denied":
        be_denied()
        good("I may not do that.", denied=["Bash"])
    elif scenario == "limit-by-event":
        limit_by_event()
    elif scenario == "limit-by-text":
        bad(LIMIT)
    elif scenario == "outage":
        bad(OUTAGE)
    elif scenario == "account":
        bad(ACCOUNT)
    elif scenario == "half":
        line = json.dumps({"type": "result", "subtype": "success", "is_error": False, "status": "success", "result": ANSWER})
        sys.stdout.write(line[:-9])
        sys.stdout.flush()
    elif scenario == "stderr-only":
        print("panic: out of luck", file=sys.stderr)
        return 1
    elif scenario == "long":
        edit()
        wait_for_ever()
    elif scenario == "silent":
        while True:
            print("still alive", file=sys.stderr, flush=True)
            time.sleep(0.05)
    if scenario == "hang":
        wait_for_ever()
    return 1 if scenario in ("exit-one", "limit-by-event") else 0


sys.exit(main())
