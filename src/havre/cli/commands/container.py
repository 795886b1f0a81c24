"""The table of `havre container` and its top-level forms."""

from __future__ import annotations

from havre.cli.commands.shared import filter_flag, force_flag, format_flag, plan_flags
from havre.cli.parser import Command
from havre.golang.flags import Flag

_ONE_OR_MORE = "CONTAINER [CONTAINER...]"
_DETACH_KEYS = Flag("detach-keys", "", "string", "Override the key sequence for detaching a container")
# --timeout is docker 29's name.
_TIME = (
    Flag("time", "t", "int", "Seconds to wait before killing the container"),
    Flag("timeout", "", "int", "Seconds to wait before killing the container"),
)
_SIGNAL = Flag("signal", "s", "string", "Signal to send to the container")
_CP = (
    "Copy files or folders between a container and the local filesystem\n\n"
    "With '-' as source, a tar archive is read from stdin and extracted into a\n"
    "directory of the container. With '-' as destination, a tar archive of the\n"
    "container's file or folder is written to stdout."
)

COMMANDS = (
    Command("attach", "[OPTIONS] CONTAINER", "Attach this terminal's streams to a running container",
            "attach:attach", (1, 1), (
        _DETACH_KEYS,
        Flag("no-stdin", "", "", "Do not attach STDIN"),
        Flag("sig-proxy", "", "", "Proxy all received signals to the process", True),
    ), top="attach"),
    Command("commit", "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes",
            "archive:commit", (1, 2), (
        Flag("author", "a", "string", 'Author (e.g., "Ada Lovelace <ada@example.org>")'),
        Flag("change", "c", "list", "Dockerfile instruction to apply to the new image"),
        Flag("message", "m", "string", "Commit message"),
        Flag("no-pause", "", "", "Do not pause the container during commit"),
        Flag("pause", "p", "", "Pause the container during commit", True),
    ), top="commit"),
    Command("cp", "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
            "Copy files or folders between a container and the local filesystem", "copy:cp", (2, 2), (
        Flag("archive", "a", "", "Archive mode (keep owner and group IDs)"),
        Flag("follow-link", "L", "", "Follow symbolic links in SRC_PATH"),
        Flag("quiet", "q", "", "Suppress progress output; never shown without a terminal"),
    ), top="cp", long=_CP),
    Command("create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", "run:create", (1, None),
            "run_flags:CREATE", top="create", stop=True),
    Command("diff", "CONTAINER", "Show changed files and directories of a container's filesystem", "archive:diff",
            (1, 1), top="diff"),
    Command("exec", "[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container", "exec:exec_",
            (2, None), (
        Flag("detach", "d", "", "Run the command in the background"),
        _DETACH_KEYS,
        Flag("env", "e", "list", "Set environment variables", check="check_env"),
        Flag("env-file", "", "list", "Read environment variables from a file"),
        Flag("interactive", "i", "", "Keep STDIN open"),
        Flag("privileged", "", "", "Give the command extended privileges"),
        Flag("tty", "t", "", "Allocate a pseudo-TTY"),
        Flag("user", "u", "string", 'User name or UID (format: "<name|uid>[:<group|gid>]")'),
        Flag("workdir", "w", "string", "Working directory inside the container"),
    ), top="exec", stop=True),
    Command("export", "[OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive", "archive:export",
            (1, 1), (Flag("output", "o", "string", "Write to a file, instead of STDOUT"),), top="export"),
    Command("inspect", "[OPTIONS] " + _ONE_OR_MORE, "Display detailed information on one or more containers",
            "inspect:containers", (1, None),
            (format_flag("f", table=False), Flag("size", "s", "", "Show total file sizes too"))),
    Command("kill", "[OPTIONS] " + _ONE_OR_MORE, "Kill one or more running containers", "lifecycle:kill", (1, None),
            (_SIGNAL,), top="kill"),
    Command("logs", "[OPTIONS] CONTAINER", "Fetch the logs of a container", "logs:logs", (1, 1), (
        Flag("details", "", "", "Show extra details provided to logs"),
        Flag("follow", "f", "", "Follow log output"),
        Flag("since", "", "string", 'Show logs since a time (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")'),
        Flag("tail", "n", "string", "Number of lines to show from the end", "all"),
        Flag("timestamps", "t", "", "Show timestamps"),
        Flag("until", "", "string", 'Show logs before a time (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")'),
    ), top="logs"),
    Command("ls list ps", "[OPTIONS]", "List containers", "ps:ps", (0, 0), (
        Flag("all", "a", "", "Show all containers (by default only running ones)"),
        filter_flag(),
        format_flag(),
        Flag("last", "n", "int", "Show n last created containers (in any state)", -1),
        Flag("latest", "l", "", "Show the latest created container (in any state)"),
        Flag("no-trunc", "", "", "Do not truncate output"),
        Flag("quiet", "q", "", "Only show container IDs"),
        Flag("size", "s", "", "Show total file sizes"),
    ), top="ps"),
    Command("pause", _ONE_OR_MORE, "Pause all processes within one or more containers", "lifecycle:pause", (1, None),
            top="pause"),
    Command("port", "CONTAINER [PRIVATE_PORT[/PROTO]]", "List a container's port mappings, or one of them",
            "lifecycle:port", (1, 2), top="port"),
    Command("prune", "[OPTIONS]", "Remove all stopped containers", "prune:containers", (0, 0),
            (filter_flag("", 'Remove only what matches the condition (e.g. "until=<timestamp>")'),
             force_flag("Do not ask for confirmation"), *plan_flags())),
    Command("rename", "CONTAINER NEW_NAME", "Rename a container", "lifecycle:rename", (2, 2), top="rename"),
    Command("restart", "[OPTIONS] " + _ONE_OR_MORE, "Restart one or more containers", "lifecycle:restart", (1, None),
            (_SIGNAL, *_TIME), top="restart"),
    Command("rm remove", "[OPTIONS] " + _ONE_OR_MORE, "Remove one or more containers", "lifecycle:rm", (1, None), (
        force_flag("Kill and remove a running container"),
        Flag("link", "l", "", "Remove the specified link"),
        Flag("volumes", "v", "", "Remove anonymous volumes associated with the container"),
    ), top="rm"),
    Command("run", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", "run:run",
            (1, None), "run_flags:RUN", top="run", stop=True),
    Command("start", "[OPTIONS] " + _ONE_OR_MORE, "Start one or more stopped containers", "attach:start", (1, None), (
        Flag("attach", "a", "", "Attach STDOUT/STDERR and forward signals"),
        Flag("checkpoint", "", "string", "Restore from this checkpoint"),
        Flag("checkpoint-dir", "", "string", "Directory of the checkpoints"),
        _DETACH_KEYS,
        Flag("interactive", "i", "", "Attach the container's STDIN"),
    ), top="start"),
    Command("stats", "[OPTIONS] [CONTAINER...]", "Display a live stream of containers' resource usage", "stats:stats",
            (0, None), (
        Flag("all", "a", "", "Show all containers (by default only running ones)"),
        format_flag(),
        Flag("no-stream", "", "", "Show the first result only"),
        Flag("no-trunc", "", "", "Do not truncate output"),
    ), top="stats"),
    Command("stop", "[OPTIONS] " + _ONE_OR_MORE, "Stop one or more running containers", "lifecycle:stop", (1, None),
            (_SIGNAL, *_TIME), top="stop"),
    Command("top", "CONTAINER [ps OPTIONS]", "Display the running processes of a container", "lifecycle:top",
            (1, None), top="top", stop=True),
    Command("unpause", _ONE_OR_MORE, "Unpause all processes within one or more containers", "lifecycle:unpause",
            (1, None), top="unpause"),
    Command("update", "[OPTIONS] " + _ONE_OR_MORE, "Update configuration of one or more containers",
            "lifecycle:update", (1, None), "run_flags:UPDATE", top="update"),
    Command("wait", _ONE_OR_MORE, "Block until one or more containers stop, then print their exit codes",
            "lifecycle:wait", (1, None), top="wait"),
)  # fmt: skip
