"""What lets a draft be published: a test of exactly that, which passed."""

from __future__ import annotations

from uuid import UUID

from models.templates import TemplateTestStatus
from services.work import Work


async def green_test(work: Work, template_id: UUID, digest: str) -> UUID | None:
    """The newest test of this template and digest that passed; None where there is none."""
    return await work.tx.fetchval(  # type: ignore[no-any-return]
        f"SELECT id FROM template_tests WHERE template_id = $1 AND digest = $2 "
        f"AND status = '{TemplateTestStatus.PASSED}' ORDER BY id DESC LIMIT 1",
        template_id,
        digest,
    )
