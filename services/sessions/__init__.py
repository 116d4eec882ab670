"""Sessions: options, life cycle, messages, approvals."""
