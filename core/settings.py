"""What can be set from the environment. docs/settings.md lists every one; a test holds that it does."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from core.errors import BadInput


class Settings(BaseSettings):
    """Settings of one process. Names are `QUARTERDECK_` and the field in capitals, but for `PORT`."""

    model_config = SettingsConfigDict(env_prefix="QUARTERDECK_", extra="ignore", frozen=True)

    home: Path = Field(Path(".quarterdeck"), description="Data folder: embedded database, working directories, keys.")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL to use instead of the embedded one: postgresql://user:password@host:5432/name."
    )
    bus_url: SecretStr = Field(
        SecretStr("memory://"),
        description="How events travel between processes: redis://host:6379 or postgres://…; "
        "memory:// stays in one process, so web and worker then use the database.",
    )
    host: str = Field("127.0.0.1", description="Address the web process listens on.")
    port: int = Field(
        8000,
        ge=1,
        le=65535,
        validation_alias=AliasChoices("PORT", "QUARTERDECK_PORT"),
        description="Port it listens on.",
    )
    public_url: str | None = Field(
        None,
        description="How browsers reach the service, https://quarterdeck.example; sets cookies and allowed origins.",
    )
    allowed_origins: tuple[str, ...] = Field(
        (), description="Further browser origins that may use the API with cookies: a JSON list of origins."
    )
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="Reverse proxies whose X-Forwarded headers are believed: a JSON list of addresses or networks.",
    )
    bootstrap_token: SecretStr | None = Field(
        None, description="A first API token of the first organisation's admin, for scripts and containers."
    )
    secret_key: SecretStr | None = Field(
        None, description="Key that seals stored secrets and signs links, 32+ characters. Default: made once in HOME."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or JSON for collectors.")
    database_pool_size: int = Field(
        10, ge=2, le=200, description="Most connections of a process's pool; a worker has a dozen more for its queue."
    )
    web_session_hours: int = Field(12, ge=1, le=720, description="Hours until a signed-in browser must sign in again.")
    worker_concurrency: int = Field(10, ge=1, le=200, description="Runs one worker process executes at a time.")
    organization_concurrency: int = Field(
        20, ge=1, le=1000, description="Runs one organisation has in execution at a time; more wait in the queue."
    )
    tool_timeout_seconds: float = Field(
        120, gt=0, description="Longest time one tool call may take; then it is killed."
    )
    approval_hours: int = Field(
        168, ge=1, description="Hours an approval waits before it expires and counts as denied."
    )
    max_message_bytes: int = Field(256 * 1024, ge=1024, description="Largest message in bytes of UTF-8.")
    max_arguments_bytes: int = Field(256 * 1024, ge=1024, description="Largest arguments of one tool call, as JSON.")
    max_tool_result_bytes: int = Field(1024 * 1024, ge=1024, description="A tool's result is cut at this size.")
    max_file_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="Largest file read or downloaded from a session."
    )
    max_query_depth: int = Field(15, ge=3, description="Deepest nesting of a GraphQL operation.")
    max_query_tokens: int = Field(4000, ge=100, description="Most lexical tokens in a GraphQL document.")
    max_query_aliases: int = Field(30, ge=1, description="Most aliases in a GraphQL operation.")
    max_query_cost: int = Field(20_000, ge=100, description="Most objects an operation may ask for, by its page sizes.")
    documents: Literal["any", "registered"] = Field(
        "any",
        description="Which documents are executed: any, or only those that operators registered (docs/documents.md).",
    )
    metrics_token: SecretStr | None = Field(
        None, description="Bearer token that reads /metrics; without one, only programs of the same machine may."
    )
    subscription_queue_size: int = Field(1000, ge=10, description="Events that wait for one slow subscriber.")
    sandbox: Literal["auto", "bubblewrap", "none"] = Field(
        "auto", description="How tools and stdio servers are confined; auto uses bubblewrap where it works."
    )
    allow_private_networks: bool = Field(
        False,
        description="Whether URLs that users give (MCP servers, alert channels) may lead to private and loopback "
        "addresses.",
    )
    sandbox_read_paths: tuple[Path, ...] = Field(
        (), description="Further folders that confined tools and servers may read: a JSON list of absolute paths."
    )
    default_model: str | None = Field(
        None, description="Model of new sessions, provider:name as pydantic-ai spells it; without one they use scripts."
    )
    anthropic_base_url: str | None = Field(None, description="Endpoint of the Anthropic Messages API.")
    anthropic_api_key: SecretStr | None = Field(None, description="Key for Anthropic models.")
    openai_base_url: str | None = Field(None, description="Endpoint of an OpenAI-compatible API.")
    openai_api_key: SecretStr | None = Field(None, description="Key for OpenAI-compatible models.")
    claude_cli_path: Path | None = Field(None, description="Claude Code program to run instead of the bundled one.")

    smtp_url: SecretStr | None = Field(
        None,
        description="Mail server: smtp://user:password@host:587 (STARTTLS), or smtps://… (TLS at once); "
        "without one no mail is sent.",
    )
    smtp_from: str | None = Field(
        None, validate_default=True, description="Whom mail comes from: Quarterdeck <quarterdeck@example.com>."
    )
    digest_minutes: int = Field(60, ge=1, le=10_080, description="Longest time a notification waits for its digest.")
    handoff_hours: int = Field(72, ge=1, le=8760, description="Hours an offered handoff waits before it expires.")
    handoff_undo_minutes: int = Field(
        10, ge=0, le=10_080, description="Minutes in which a handoff that was accepted can be undone."
    )

    metrics_raw_days: int = Field(90, ge=1, le=36_500, description="Days for which facts are kept one by one.")
    metrics_minute_days: int = Field(30, ge=1, le=36_500, description="Days for which figures are kept by minute.")
    metrics_hour_days: int = Field(400, ge=1, le=36_500, description="Days for which figures are kept by hour.")
    metrics_day_days: int | None = Field(
        None, ge=1, le=36_500, description="Days for which figures are kept by day; without it, for ever."
    )

    @field_validator("bus_url")
    @classmethod
    def _known_bus(cls, url: SecretStr) -> SecretStr:
        scheme = url.get_secret_value().partition("://")[0]
        if scheme not in ("memory", "redis", "rediss", "postgres", "postgresql"):
            raise ValueError("is one of memory://, redis://HOST:PORT and postgres://…")
        return url

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and url.get_secret_value().partition("://")[0] not in ("postgres", "postgresql"):
            raise ValueError("is a PostgreSQL URL: postgresql://user:password@host:5432/name")
        return url

    @field_validator("smtp_url")
    @classmethod
    def _known_mail_server(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and url.get_secret_value().partition("://")[0] not in ("smtp", "smtps"):
            raise ValueError("is the URL of a mail server: smtp://user:password@host:587, or smtps://…")
        return url

    @field_validator("smtp_from")
    @classmethod
    def _sender_with_a_mail_server(cls, sender: str | None, info: ValidationInfo) -> str | None:
        if sender is None and info.data.get("smtp_url") is not None:
            raise ValueError("is needed with QUARTERDECK_SMTP_URL: Quarterdeck <quarterdeck@example.com>")
        return sender

    @cached_property
    def data(self) -> Path:
        """The data folder, absolute."""
        return self.home.expanduser().resolve()

    @property
    def workspaces(self) -> Path:
        """Where sessions have their working directories."""
        return self.data / "workspaces"

    @property
    def base_url(self) -> str:
        """Where links that we print or sign lead to."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once. Raises BadInput that names every variable that makes no sense."""
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            (_variable(problem["loc"]), problem["msg"].removeprefix("Value error, ")) for problem in error.errors()
        ]
        raise BadInput(
            "; ".join(f"{variable}: {message}" for variable, message in problems) + ". docs/settings.md lists them all."
        ) from None
    except SettingsError as error:
        # A list that is no JSON: the library names the field only in words.
        raise BadInput(f"{error}. Lists are given as JSON; docs/settings.md lists all settings.") from None


def _variable(place: tuple[int | str, ...]) -> str:
    name = str(place[0]) if place else "settings"
    return name if name.isupper() else f"QUARTERDECK_{name.upper()}"
