"""The table of `havre image` and its top-level forms."""

from __future__ import annotations

from havre.cli.commands.shared import filter_flag, force_flag, format_flag, plan_flags
from havre.cli.parser import Command
from havre.golang.flags import Flag

_MANY = "[OPTIONS] IMAGE [IMAGE...]"
_PLATFORM = Flag("platform", "", "string", "Platform to select from a multi-platform image")

_PLATFORMS = Flag("platform", "", "list", "Platforms of the image to include (linux/amd64,linux/arm64)")

BUILD_FLAGS = (
    Flag("add-host", "", "list", "Add a line to the hosts file (host:ip)", check="check_host"),
    Flag("allow", "", "list", "Grant the build an entitlement (network.host, security.insecure, device)"),
    Flag("annotation", "", "list", "Annotate the image in an archive (KEY=VALUE, index:KEY=VALUE)"),
    Flag("attest", "", "list", "An attestation (type=provenance,mode=max or type=sbom)"),
    Flag("build-arg", "", "list", "Set an ARG of the Dockerfile"),
    Flag("builder", "", "string", "Builder to use; only default exists"),
    Flag("cache-from", "", "list", "Build cache to use (IMAGE, type=registry,ref=NAME, type=local,src=DIR)"),
    Flag("cache-to", "", "list", "Cache destinations (type=inline, type=registry,ref=NAME, type=local,dest=DIR)"),
    Flag("check", "", "", "Run docker's build checks, and build nothing"),
    Flag("build-context", "", "list", "A named context (NAME=DIRECTORY, NAME=docker-image://IMAGE)"),
    Flag("cgroup-parent", "", "string", "Parent cgroup of the RUN instructions' containers"),
    Flag("cpu-period", "", "int", "Length of a CPU period, in microseconds"),
    Flag("cpu-quota", "", "int", "CPU time per period, in microseconds"),
    Flag("cpu-shares", "c", "int", "Relative weight of CPU time"),
    Flag("cpuset-cpus", "", "string", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag("cpuset-mems", "", "string", "Memory nodes in which to allow execution (0-3, 0,1)"),
    Flag("file", "f", "string", "Name of the Dockerfile (default is PATH/Dockerfile)"),
    Flag("graph", "", "string", "Draw stages, times and cache hits as SVG to a file"),
    Flag("iidfile", "", "string", "Write the image ID to a file"),
    Flag("label", "", "list", "Set a label of the image"),
    Flag("memory", "m", "bytes", "Memory limit"),
    Flag("memory-swap", "", "swap", "Limit of memory and swap together; -1 for unlimited swap"),
    Flag("metadata-file", "", "string", "Write build result metadata to a file"),
    Flag("network", "", "string", "Network of the RUN instructions"),
    Flag("no-cache", "", "", "Do not use cache when building the image"),
    Flag("no-cache-filter", "", "list", "Do not cache specified stages"),
    Flag("load", "", "", "Store the image in the daemon (the default without --output)"),
    Flag("output", "o", "list", "Output destination (DIRECTORY, type=local|tar|oci|docker|image,dest=FILE)"),
    Flag("platform", "", "string", "Platforms to build for (linux/amd64,linux/arm64)"),
    Flag("progress", "", "string", "Type of progress output (auto, plain, tty, rawjson)", "auto"),
    Flag("provenance", "", "string", "Attest the result's provenance (true, mode=max, version=v1)"),
    Flag("pull", "", "", "Always attempt to pull all referenced images"),
    Flag("push", "", "", "Push the image to the registries of its names"),
    Flag("quiet", "q", "", "Suppress the build output and print image ID on success"),
    Flag("sbom", "", "string", "Attest the packages in the result (true)"),
    Flag("secret", "", "list", "A secret for RUN --mount=type=secret (id=NAME,src=FILE or env=VARIABLE)"),
    Flag("shm-size", "", "bytes", "Size of /dev/shm"),
    Flag("squash", "", "", "Squash the layers above the base into one"),
    Flag("ssh", "", "list", "An SSH agent for RUN --mount=type=ssh (default, default=SOCKET, id=KEY)"),
    Flag("tag", "t", "list", "Name of the image (NAME[:TAG])"),
    Flag("target", "", "string", "Stage to build"),
    Flag("ulimit", "", "ulimit", "Limits of setrlimit(2)"),
)

COMMANDS = (
    Command("build", "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile", "build:build", (1, 1), BUILD_FLAGS,
            top="build"),
    Command("history", "[OPTIONS] IMAGE", "Show the history of an image", "images:history", (1, 1), (
        format_flag(),
        Flag("human", "H", "", "Print sizes and dates in human readable form", True),
        Flag("no-trunc", "", "", "Do not truncate output"),
        _PLATFORM,
        Flag("quiet", "q", "", "Only show image IDs"),
    ), top="history"),
    Command("import", "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", "Create an image from a tarball of a root filesystem",
            "archive:import_", (1, 2), (
        Flag("change", "c", "list", "Dockerfile instruction to apply to the new image"),
        Flag("message", "m", "string", "Commit message of the new image"),
        _PLATFORM,
    ), top="import"),
    Command("inspect", _MANY, "Display detailed information on one or more images", "inspect:images", (1, None),
            (format_flag("f", table=False), _PLATFORM)),
    Command("load", "[OPTIONS]", "Load images from a tar archive or STDIN", "archive:load", (0, 0), (
        Flag("input", "i", "string", "Read from a tar archive file, instead of STDIN"),
        _PLATFORMS,
        Flag("quiet", "q", "", "Suppress progress output"),
    ), top="load"),
    Command("ls list", "[OPTIONS] [REPOSITORY[:TAG]]", "List images", "images:ls", (0, 1), (
        Flag("all", "a", "", "Show all images (by default not intermediate ones)"),
        Flag("digests", "", "", "Show digests"),
        filter_flag(),
        format_flag(),
        Flag("no-trunc", "", "", "Do not truncate output"),
        Flag("quiet", "q", "", "Only show image IDs"),
        Flag("tree", "", "", "Show the platforms below each name"),
    ), top="images"),
    Command("prune", "[OPTIONS]", "Remove unused images", "prune:images", (0, 0), (
        Flag("all", "a", "", "Remove all unused images, not only dangling ones"),
        filter_flag("", 'Remove only what matches the condition (e.g. "until=<timestamp>")'),
        force_flag("Do not ask for confirmation"),
        *plan_flags(),
    )),
    Command("pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", "pull:pull", (1, 1), (
        Flag("all-tags", "a", "", "Download all tags of the repository"),
        Flag("disable-content-trust", "", "bool?", "Skip verification of the image", shown="true"),
        Flag("platform", "", "string", "Platforms to pull of a multi-platform image (linux/amd64,linux/arm64)"),
        Flag("quiet", "q", "", "Suppress progress output"),
        Flag("verify", "", "string", "Require a signature by this cosign public key (a file)"),
    ), top="pull"),
    Command("push", "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", "pull:push", (1, 1), (
        Flag("all-tags", "a", "", "Push all tags of the repository"),
        Flag("disable-content-trust", "", "bool?", "Skip signing of the image", shown="true"),
        Flag("platform", "", "string", "Push only this platform's image, without the index"),
        Flag("quiet", "q", "", "Suppress progress output"),
    ), top="push"),
    Command("rm remove", _MANY, "Remove one or more images", "images:rm", (1, None), (
        force_flag("Remove the image although it is used"),
        Flag("no-prune", "", "", "Do not delete untagged parents"),
        _PLATFORMS,
    ), top="rmi"),
    Command("save", _MANY, "Save one or more images to a tar archive (to STDOUT by default)", "archive:save",
            (1, None), (Flag("output", "o", "string", "Write to a file, instead of STDOUT"), _PLATFORMS), top="save"),
    Command("sbom", "[OPTIONS] IMAGE", "List the packages installed in an image", "sbom:sbom", (1, 1), (
        Flag("format", "", "string",
             "'table' (default), 'spdx-json', 'cyclonedx-json',\n"
             "'json' (one package per line), or a Go template"),
        Flag("no-trunc", "", "", "Do not truncate output"),
        Flag("output", "o", "string", "Write to a file, instead of STDOUT"),
        _PLATFORM,
    )),
    Command("tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
            "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", "images:tag", (2, 2), top="tag"),
)  # fmt: skip
