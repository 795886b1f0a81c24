"""Build checks: Docker's rules for good Dockerfiles, the policy that selects them, and the rendering of findings. Pure.

    # check=skip=RULE,RULE;error=true    --Policy-->  which rules apply, whether a finding fails the build
    BUILDKIT_DOCKERFILE_CHECK=...                     (the build argument overrides the directive)
    # check=skip=RULE  above an instruction           for this instruction only

The rules themselves are in `checkrules`, their descriptions here. Names, texts and URLs are Docker's, because users
look them up in its documentation and tools match on them.

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
    """A rule's description and its page in Docker's documentation; experimental rules are off by default."""

    description: str
    page: str
    experimental: bool = False

    @property
    def url(self) -> str:
        """The URL of the rule's page."""
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
    """A violation of a rule in the lines `line` to `end`, from 1."""

    line: int
    end: int
    rule: str
    message: str


@dataclass(frozen=True)
class Policy:
    """Which rules apply; "all" stands for all rules. `fails` makes findings errors."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    fails: bool = False

    def wants(self, rule: str) -> bool:
        """Report whether the rule applies. `skip` does not affect experimental rules, which `experimental` turns on."""
        if RULES[rule].experimental:
            return bool(self.experimental & {"all", rule})
        return not self.skip & {"all", rule}


def parse_policy(text: str) -> Policy:
    """A policy from `skip=A,B;experimental=all;error=true`. Raises `InvalidInput`."""
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
    """The policy of the build argument or, without one, of the file's directive."""
    given = build_args.get(ARGUMENT)
    return parse_policy(dockerfile.directives.get(DIRECTIVE, "") if given is None else given)


def permitted(findings: Iterable[Finding], policy: Policy, dockerfile: Dockerfile) -> list[Finding]:
    """The distinct findings that neither the policy nor a comment above the instruction turns off, by line."""
    local = dict(_local_policies(dockerfile))
    kept = {
        each
        for each in findings
        if policy.wants(each.rule) and (each.line not in local or local[each.line].wants(each.rule))
    }
    return sorted(kept)


def _local_policies(dockerfile: Dockerfile) -> Iterator[tuple[int, Policy]]:
    """Policies of `# check=` comments above instructions, by the instruction's line. Malformed ones are ignored."""
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
    """Findings of a build whose policy makes findings errors."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        rules = dict.fromkeys(each.rule for each in findings)
        super().__init__(f"lint violation found for rules: {', '.join(rules)}")


# -- what a check shows


@dataclass(frozen=True)
class CheckReport:
    """The result of `--check`; `error` is the reason why the file cannot be built at all, and `error_line` its line."""

    name: str
    data: bytes
    findings: tuple[Finding, ...] = ()
    error: str = ""
    error_line: int = 0
    lines: Sequence[str] = field(default=(), repr=False)

    @property
    def failed(self) -> bool:
        """Report whether the command exits with status 1."""
        return bool(self.findings or self.error)

    def text(self) -> str:
        """The text that `docker build --check` prints after its own first line."""
        return "".join(f"\n{each}" for each in map(self._rendered, self.findings))

    def _rendered(self, finding: Finding) -> str:
        rule = RULES[finding.rule]
        head = f"WARNING: {finding.rule} - {rule.url}\n{finding.message}\n"
        return head + excerpt(self.name, self.lines, finding.line, finding.end)

    def document(self) -> bytes:
        """The JSON of BuildKit's subrequest `frontend.lint`."""
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
