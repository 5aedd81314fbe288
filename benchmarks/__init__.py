"""Measures WowEvent beside its peers: the same workload for every engine and every peer, nothing lost on either side.

__main__   the command          report    JSON and Markdown         machine   what it was measured on, and what else ran
run        one after the other  kept      what a cut run had found  page      docs/performance.md out of a run
bench      A B A B, rows        figures   medians, ratios, aims     bars      its charts
side       one side, checked    part      one process of it         places    engines and servers
load       our events           body      their payload             pace      what latency is measured at
peers      projects installed beside ours, each in an environment of its own
workloads/ one file each: sides and aims      parts/ what runs in a process: our bus, and each peer
"""
