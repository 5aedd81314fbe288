"""Measures WowEvent beside its peers: the same workload for every engine and every peer, nothing lost on either side.

__main__   the command          report    JSON and Markdown         machine   what it was measured on
bench      A B A B, rows        figures   medians, ratios, aims     load      the events
side       one side, checked    part      one process of it         places    engines and servers
body       their payload        peers     projects installed beside ours, each in an environment of its own
workloads/ one file each: sides and aims      parts/ what runs in a process: our bus, and each peer
"""
