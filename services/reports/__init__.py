"""Reports: tables and pages of what metrics and costs say, made once or by a schedule."""
