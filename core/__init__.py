"""What every other room stands on: settings, ids, errors, paging, permissions, bus. Imports nothing of ours."""
