"""Signed bundles of session templates, and whose bundles an organisation takes, in the graph."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry

from core.ids import decode
from core.permissions import Permission
from models import template_trust as models
from resolvers import template_files as reads
from resolvers.identity import user_in
from schema.connections import After, Connection, First
from schema.fields import Info, Node, column, entity, input_type, mutation, nested, object_type, query
from schema.sessions import LazyUser
from schema.template_files import AppliedSessionTemplate, TemplateCredential
from schema.templates import TemplateOrigin
from services.templates import bundles, trust


@object_type
class TemplateSigningKey:
    """The key that your organisation signs bundles with: Ed25519. Others trust it by its public half."""

    public_key: str = column("`ed25519:` and 32 bytes in base64: give it to those who are to take your bundles.")
    fingerprint: str = column("SHA-256 of the public key's 32 bytes, hexadecimal: compare it on another way.")
    created_at: datetime = column("Since when it is the key.")


@entity(models.TrustedPublisherRow)
class TrustedPublisher(Node):
    """A key whose bundles your organisation takes."""

    name: str = column("What your organisation calls its owner. Keys of one name are one publisher's.")
    public_key: str = column("`ed25519:` and 32 bytes in base64.")
    fingerprint: str = column("SHA-256 of the public key's 32 bytes, hexadecimal.")
    created_at: datetime = column("Since when it is trusted.")

    @nested(user_in("added_by_id"), common=Permission.MEMBERS_READ)
    def added_by(self) -> LazyUser | None:
        """Which admin trusts it."""


@object_type
class TemplateBundle:
    """A signed bundle that was made."""

    file_name: str = column("What to call the file.")
    sha256: str = column("SHA-256 of the file, hexadecimal.")
    size: int = column("Bytes of the file.")
    fingerprint: str = column("The fingerprint of the key that has signed it.")
    download_url: str = column(
        "Downloads the file without further credentials, for 15 minutes, and as long as you may export it. Each "
        "download is recorded in the audit log in your name."
    )
    expires_at: datetime = column("Until when the link is good.")
    findings: list[TemplateCredential] = column("What in it looks like a credential. Look at it before you pass it on.")


@input_type
class ExportTemplateBundleInput:
    """Versions of a template to sign, which takes ADMIN."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    versions: list[int] = strawberry.field(description="The numbers of 1 to 20 versions.")


@object_type
class ExportTemplateBundlePayload:
    """The bundle that was made."""

    bundle: TemplateBundle = column("The bundle.")


@input_type
class ImportTemplateBundleInput:
    """A bundle to import."""

    content: str = strawberry.field(description="The file, at most 1,400,000 bytes, in base64.")
    version: int | None = strawberry.field(
        default=None, description="Which of its versions; left out, that with the highest number."
    )
    expected_revision: int | None = strawberry.field(
        default=None,
        description="The `draft.revision` that you saw. Needed where the draft was changed here since the last import, "
        "for that is lost.",
    )


@object_type
class ImportTemplateBundlePayload:
    """What became of a bundle."""

    result: AppliedSessionTemplate = column("What became of the template. Test it, and publish it.")
    origin: TemplateOrigin = column("Where it comes from.")

    @classmethod
    def of(cls, found: bundles.Imported) -> ImportTemplateBundlePayload:
        """The payload of an import."""
        return cls(result=found.applied, origin=found.origin)


@input_type
class TrustPublisherInput:
    """A key to trust."""

    name: str = strawberry.field(
        description="What to call its owner, 1 to 100 characters. Give a new key of the same publisher the same name."
    )
    public_key: str = strawberry.field(
        description="The `templateSigningKey.publicKey` of the other organisation. Compare the fingerprint with its "
        "owner on another way than the one that it came on."
    )


@input_type
class DistrustPublisherInput:
    """A key that is not to be trusted any more."""

    publisher_id: strawberry.ID = strawberry.field(description="The publisher, `pub_…`.")


@input_type
class RotateTemplateSigningKeyInput:
    """A new key to sign with."""

    confirm: bool = strawberry.field(
        description="true: those who take your bundles have to trust the new key before they take the next one."
    )


@object_type
class TrustedPublisherPayload:
    """The publisher."""

    publisher: TrustedPublisher = column("The publisher as it is now, or was.")


@object_type
class RotateTemplateSigningKeyPayload:
    """The new key."""

    signing_key: TemplateSigningKey = column("The key that signs from now on.")


@strawberry.type
class TemplateTrustQuery:
    @query(Permission.TEMPLATES_READ)
    async def trusted_publishers(info: Info, first: First = None, after: After = None) -> Connection[TrustedPublisher]:
        """Whose bundles of templates your organisation takes, the newest first."""
        return await reads.publishers(info.context.actor, first=first, after=after)

    @query(Permission.TEMPLATES_READ)
    async def template_signing_key(info: Info) -> TemplateSigningKey | None:
        """The key that your organisation signs bundles with; null before the first bundle. An admin makes one with
        `rotateTemplateSigningKey`, too."""
        return await reads.signing_key(info.context.actor)


@strawberry.type
class TemplateTrustMutation:
    @mutation(Permission.TEMPLATES_SHARE)
    async def export_template_bundle(info: Info, input: ExportTemplateBundleInput) -> ExportTemplateBundlePayload:
        """Make a bundle of versions of a template, signed in the name of your organisation, which another installation
        imports."""
        bundle: Any = await bundles.export_bundle(
            info.context.actor, decode("tpl", input.template_id, field="templateId"), input.versions
        )
        return ExportTemplateBundlePayload(bundle=bundle)

    @mutation(Permission.TEMPLATES_WRITE)
    async def import_template_bundle(info: Info, input: ImportTemplateBundleInput) -> ImportTemplateBundlePayload:
        """Import a bundle: the template of its name is made, or its draft changed, where it comes from the same
        publisher. It is not published: test it here first. The same bundle again changes nothing. FORBIDDEN where the
        signer is not trusted, BAD_INPUT where anything in the bundle is not as it was signed."""
        found = await bundles.import_bundle(
            info.context.actor, input.content, version=input.version, expected_revision=input.expected_revision
        )
        return ImportTemplateBundlePayload.of(found)

    @mutation(Permission.TEMPLATES_SHARE)
    async def trust_publisher(info: Info, input: TrustPublisherInput) -> TrustedPublisherPayload:
        """Take the bundles that a key signs. Only for admins. Again with another name gives it that one."""
        row: Any = await trust.trust_publisher(info.context.actor, input.name, input.public_key)
        return TrustedPublisherPayload(publisher=row)

    @mutation(Permission.TEMPLATES_SHARE)
    async def distrust_publisher(info: Info, input: DistrustPublisherInput) -> TrustedPublisherPayload:
        """Take no more bundles that a key signs. Only for admins. What was imported stays."""
        publisher_id = decode("pub", input.publisher_id, field="publisherId")
        row: Any = await trust.distrust_publisher(info.context.actor, publisher_id)
        return TrustedPublisherPayload(publisher=row)

    @mutation(Permission.TEMPLATES_SHARE)
    async def rotate_template_signing_key(
        info: Info, input: RotateTemplateSigningKeyInput
    ) -> RotateTemplateSigningKeyPayload:
        """Sign with another key from now on, because the old one may be known to others, or to make the first. Only for
        admins. Bundles that exist stay good for those who trust the old key."""
        row: Any = await trust.rotate_signing_key(info.context.actor, confirmed=input.confirm)
        return RotateTemplateSigningKeyPayload(signing_key=row)
