"""How often a test of a template was begun: workers may die in the middle of one."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("models", "0014_templates")]
    operations = [
        ops.AddField(model_name="TemplateTest", name="attempt", field=fields.IntField(default=0, db_default=0)),
    ]
