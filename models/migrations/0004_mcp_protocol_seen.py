"""The protocol version that an MCP server spoke when it was checked, beside the one it is to speak."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("models", "0003_audit")]
    operations = [
        ops.AddField("McpServer", "protocol_version_seen", fields.CharField(null=True, max_length=20)),
    ]
