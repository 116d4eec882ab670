"""Versions of templates that nobody changes, and what the catalogue is searched by."""

from uuid import uuid4

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.migrations import operations as ops

from models.base import TextArrayField

FORWARD = [
    # Whoever has a session of a version relies on it: what was published stays, whoever writes. That it is deprecated,
    # how often it was used, and that its test is gone may be said of it.
    """
    CREATE FUNCTION template_version_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (NEW.id, NEW.organization_id, NEW.template_id, NEW.number, NEW.spec, NEW.digest, NEW.message, NEW.author_id,
            NEW.created_at, NEW.rolled_back_to, NEW.untested_reason)
            IS DISTINCT FROM
            (OLD.id, OLD.organization_id, OLD.template_id, OLD.number, OLD.spec, OLD.digest, OLD.message, OLD.author_id,
            OLD.created_at, OLD.rolled_back_to, OLD.untested_reason)
            OR (NEW.test_id IS DISTINCT FROM OLD.test_id AND NEW.test_id IS NOT NULL)
        THEN
            RAISE EXCEPTION 'Version % of a template never changes: publish another one.', OLD.number
            USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN NEW;
    END
    $$
    """,
    """
    CREATE TRIGGER session_template_versions_immutable BEFORE UPDATE ON session_template_versions
    FOR EACH ROW EXECUTE FUNCTION template_version_refuse_change()
    """,
    """
    CREATE FUNCTION template_version_refuse_removal() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'Versions of templates stay: % is refused.', TG_OP USING ERRCODE = 'insufficient_privilege';
    END
    $$
    """,
    """
    CREATE TRIGGER session_template_versions_stay BEFORE DELETE OR TRUNCATE ON session_template_versions
    FOR EACH STATEMENT EXECUTE FUNCTION template_version_refuse_removal()
    """,
    # Also where session_replication_role would skip them.
    "ALTER TABLE session_template_versions ENABLE ALWAYS TRIGGER session_template_versions_immutable",
    "ALTER TABLE session_template_versions ENABLE ALWAYS TRIGGER session_template_versions_stay",
    "ALTER TABLE template_listings ADD COLUMN search tsvector NOT NULL",
    "ALTER TABLE template_listings ADD FOREIGN KEY (template_id) REFERENCES session_templates (id) ON DELETE CASCADE",
    "CREATE INDEX template_listings_search ON template_listings USING gin (search)",
    "CREATE INDEX template_listings_facets ON template_listings USING gin (facets)",
    "CREATE INDEX template_listings_organization ON template_listings (organization_id)",
    # What the catalogue is ordered by. A few votes count as if five others had given three stars.
    """
    ALTER TABLE session_templates ADD COLUMN rating_rank double precision NOT NULL
    GENERATED ALWAYS AS ((rating_sum + 15) / (rating_count + 5)::double precision) STORED
    """,
    "CREATE INDEX session_templates_used ON session_templates (organization_id, use_count, id) "
    "WHERE listed_at IS NOT NULL",
    "CREATE INDEX session_templates_rated ON session_templates (organization_id, rating_rank, id) "
    "WHERE listed_at IS NOT NULL",
    "CREATE INDEX session_templates_listed ON session_templates (organization_id, listed_at, id) "
    "WHERE listed_at IS NOT NULL",
    "CREATE INDEX session_templates_named ON session_templates (organization_id, name, id) WHERE listed_at IS NOT NULL",
    "CREATE INDEX template_reviews_newest ON template_reviews (template_id, id)",
    # Whose sessions were started from templates.
    "CREATE INDEX sessions_of_templates_by ON sessions (creator_id, created_at) WHERE template_version_id IS NOT NULL",
]
BACKWARD = [
    "DROP INDEX sessions_of_templates_by, template_reviews_newest, session_templates_named, "
    "session_templates_listed, session_templates_rated, session_templates_used",
    "ALTER TABLE session_templates DROP COLUMN rating_rank",
    "DROP TRIGGER session_template_versions_stay ON session_template_versions",
    "DROP TRIGGER session_template_versions_immutable ON session_template_versions",
    "DROP FUNCTION template_version_refuse_change, template_version_refuse_removal",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0021_otlp")]

    initial = False

    operations = [
        ops.CreateModel(
            name="TemplateListing",
            fields=[
                ("template_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                (
                    "organization",
                    fields.ForeignKeyField(
                        "models.Organization",
                        source_field="organization_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("facets", TextArrayField(default=list, generated=False, null=False, unique=False)),
                ("everybody", fields.BooleanField()),
            ],
            options={
                "table": "template_listings",
                "app": "models",
                "pk_attr": "template_id",
                "table_description": "What the catalogue finds a listed template by: narrow, so that searching and counting reads little.",
            },
            bases=["Model"],
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
