"""Build checks: docker's rules for good Dockerfiles, which of them apply, and how findings are shown. Pure.

    # check=skip=RULE,RULE;error=true    --Policy-->  which rules, whether a finding fails the build
    BUILDKIT_DOCKERFILE_CHECK=...                     (the build argument wins over the directive)
    # check=skip=RULE  above an instruction           for that one alone

The rules themselves are in `checkrules`; here is what is said of them. Names, texts and addresses are docker's, since
people look for them in its documentation and tools match on them.

Source: the Docker documentation, "Build checks"; moby/buildkit frontend/dockerfile/linter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from havre.dockerfile.syntax import Dockerfile, excerpt
from havre.errors import InvalidInput
from havre.golang.units import parse_bool

DIRECTIVE, ARGUMENT = "check", "BUILDKIT_DOCKERFILE_CHECK"
_SITE = "https://docs.docker.com/go/dockerfile/rule/"


@dataclass(frozen=True)
class Rule:
    """What a rule wants, and where docker's documentation explains it; experimental ones are off unless asked for."""

    description: str
    page: str
    experimental: bool = False

    @property
    def url(self) -> str:
        """Its page."""
        return f"{_SITE}{self.page}/"


RULES: Mapping[str, Rule] = {
    "StageNameCasing": Rule("Stage names should be lowercase", "stage-name-casing"),
    "FromAsCasing": Rule("The 'as' keyword should match the case of the 'from' keyword", "from-as-casing"),
    "NoEmptyContinuation": Rule(
        "Empty continuation lines will become errors in a future release", "no-empty-continuation"
    ),
    "ConsistentInstructionCasing": Rule(
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
        "consistent-instruction-casing",
    ),
    "DuplicateStageName": Rule("Stage names should be unique", "duplicate-stage-name"),
    "ReservedStageName": Rule("Reserved words should not be used as stage names", "reserved-stage-name"),
    "JSONArgsRecommended": Rule(
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        "json-args-recommended",
    ),
    "MaintainerDeprecated": Rule(
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        "maintainer-deprecated",
    ),
    "UndefinedArgInFrom": Rule("FROM command must use declared ARGs", "undefined-arg-in-from"),
    "WorkdirRelativePath": Rule(
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the"
        " base image changes",
        "workdir-relative-path",
    ),
    "UndefinedVar": Rule("Variables should be defined before their use", "undefined-var"),
    "MultipleInstructionsDisallowed": Rule(
        "Multiple instructions of the same type should not be used in the same stage",
        "multiple-instructions-disallowed",
    ),
    "LegacyKeyValueFormat": Rule(
        "Legacy key/value format with whitespace separator should not be used", "legacy-key-value-format"
    ),
    "RedundantTargetPlatform": Rule(
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        "redundant-target-platform",
    ),
    "SecretsUsedInArgOrEnv": Rule(
        "Sensitive data should not be used in the ARG or ENV commands", "secrets-used-in-arg-or-env"
    ),
    "InvalidDefaultArgInFrom": Rule(
        "Default value for global ARG results in an empty or invalid base image name", "invalid-default-arg-in-from"
    ),
    "FromPlatformFlagConstDisallowed": Rule(
        "FROM --platform flag should not use a constant value", "from-platform-flag-const-disallowed"
    ),
    "InvalidBaseImagePlatform": Rule(
        "Base image platform does not match expected target platform", "invalid-base-image-platform"
    ),
    "CopyIgnoredFile": Rule("Attempting to Copy file that is excluded by .dockerignore", "copy-ignored-file"),
    "InvalidDefinitionDescription": Rule(
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is"
        " not intended to be a description comment, add an empty line or comment between the instruction and the"
        " comment.",
        "invalid-definition-description",
        experimental=True,
    ),
    "ExposeProtoCasing": Rule("Protocol in EXPOSE instruction should be lowercase", "expose-proto-casing"),
    "ExposeInvalidFormat": Rule(
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a"
        " future release",
        "expose-invalid-format",
    ),
}


@dataclass(frozen=True, order=True)
class Finding:
    """What a rule found wrong in the lines `line` to `end`, from 1."""

    line: int
    end: int
    rule: str
    message: str


@dataclass(frozen=True)
class Policy:
    """Which rules apply; "all" may stand for every one. `fails` makes a finding an error."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    fails: bool = False

    def wants(self, rule: str) -> bool:
        """Whether the rule applies; experimental ones are not turned off by `skip`, but on by name."""
        if RULES[rule].experimental:
            return bool(self.experimental & {"all", rule})
        return not self.skip & {"all", rule}


def parse_policy(text: str) -> Policy:
    """`skip=A,B;experimental=all;error=true`; raises `InvalidInput`."""
    policy = Policy()
    for part in filter(None, text.strip().split(";", 2)):
        key, equals, value = (each.strip() for each in part.partition("="))
        names = frozenset(name.strip() for name in value.split(","))
        if key == "skip" and equals:
            policy = Policy(names, policy.experimental, policy.fails)
        elif key == "experimental" and equals:
            policy = Policy(policy.skip, names, policy.fails)
        elif key == "error" and (fails := _truth(value)) is not None:
            policy = Policy(policy.skip, policy.experimental, fails)
        else:
            raise InvalidInput(
                f'failed to parse check options: invalid check option "{part}"',
                "expected skip=RULE,... experimental=RULE,... or error=true, joined by semicolons",
            )
    return policy


def _truth(text: str) -> bool | None:
    try:
        return parse_bool(text.lower())
    except ValueError:
        return None


def policy_of(dockerfile: Dockerfile, build_args: Mapping[str, str | None]) -> Policy:
    """What the build argument says, else what the file does."""
    given = build_args.get(ARGUMENT)
    return parse_policy(dockerfile.directives.get(DIRECTIVE, "") if given is None else given)


def permitted(findings: Iterable[Finding], policy: Policy, dockerfile: Dockerfile) -> list[Finding]:
    """The findings that the policy and the comments above their instructions let stand, each once, by line."""
    local = dict(_local_policies(dockerfile))
    kept = {
        each
        for each in findings
        if policy.wants(each.rule) and (each.line not in local or local[each.line].wants(each.rule))
    }
    return sorted(kept)


def _local_policies(dockerfile: Dockerfile) -> Iterator[tuple[int, Policy]]:
    """What `# check=` above an instruction turns off, by the instruction's line. A bad one counts as none."""
    for instruction in dockerfile.instructions:
        for comment in instruction.comments:
            key, equals, value = comment.partition("=")
            if equals and key.strip().lower() == DIRECTIVE:
                try:
                    policy = parse_policy(value.strip().partition(" ")[0])
                except InvalidInput:
                    continue
                yield instruction.line, Policy(policy.skip, frozenset({"all"}))


class LintViolation(InvalidInput):
    """Findings where the policy says that there may be none."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        rules = dict.fromkeys(each.rule for each in findings)
        super().__init__(f"lint violation found for rules: {', '.join(rules)}")


# -- what a check shows


@dataclass(frozen=True)
class CheckReport:
    """What `--check` found in a file; `error` is why it could not be built at all, and `error_line` where."""

    name: str
    data: bytes
    findings: tuple[Finding, ...] = ()
    error: str = ""
    error_line: int = 0
    lines: Sequence[str] = field(default=(), repr=False)

    @property
    def failed(self) -> bool:
        """Whether a checking command ends with status 1."""
        return bool(self.findings or self.error)

    def text(self) -> str:
        """As `docker build --check` prints it, below its own first line."""
        return "".join(f"\n{each}" for each in map(self._told, self.findings))

    def _told(self, finding: Finding) -> str:
        rule = RULES[finding.rule]
        head = f"WARNING: {finding.rule} - {rule.url}\n{finding.message}\n"
        return head + excerpt(self.name, self.lines, finding.line, finding.end)

    def document(self) -> bytes:
        """As BuildKit's subrequest `frontend.lint` gives it, in JSON."""
        source = {"filename": self.name, "language": "Dockerfile", "data": self.data}
        warnings = [
            {
                "ruleName": each.rule,
                "description": RULES[each.rule].description,
                "url": RULES[each.rule].url,
                "detail": each.message,
                "location": _location(each.line, each.end),
            }
            for each in self.findings
        ]
        found: dict[str, object] = {"warnings": warnings, "sources": [source]}
        if self.error:
            found["buildError"] = {"message": self.error, "location": _location(self.error_line, self.error_line)}
        return msgspec.json.format(msgspec.json.encode(found))


def _location(line: int, end: int) -> dict[str, object]:
    return {"ranges": [{"start": {"line": line}, "end": {"line": end}}] if line else []}
