"""The doors that other people's assistants come in by: UCP over REST, and MCP with UCP's tools."""
