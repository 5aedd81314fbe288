"""An MCP server over a bus: the tools with which an agent uses a system, looks at it and repairs it.

server       what is listed and what is called -> tool: one row each, its arguments checked, its errors told
call         who calls, what they may do, and the bus, which is opened when it is first needed
stdio, http  the two ways in
"""
