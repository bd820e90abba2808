// Package agent is the daemon. It composes the rooms below it, and owns every goroutine, socket, file and clock. It
// decides nothing: agent/desk decides about slots, agent/court about licences. open.go opens all, and says at once what
// runs of it and how it closes; running.go runs and closes it, the last one first. The other files join two rooms each,
// and are named for what they join. Start reading at [New] and [Agent.Run].
//
// # The order of locks
//
// A goroutine that holds a lock may take those further down, and no other:
//
//  1. a reload's (present.reloading), one at a time
//  2. the court's: the facts and the verdict
//  3. a source's of facts: the pulse's, the shares'; they ask the desk under it, and never the court
//  4. the store's sealing lock in agent/desk: one seal or compaction of a journal at a time
//  5. the desk's: every decision
//  6. leaves, under which nobody else is called: of the registry of holders, the feeds of events, the sessions' turns,
//     a journal, the event log's queue, the court's verifier and history, present.mu
//
// The court's lock, a source's, the desk's and the leaves are never held over a sync of a disk, a call to an upstream
// or a plugin, or a send that may block. The desk writes to a journal under its lock, and waits for the disk without
// it. Some locks are held over the disk, and nothing that decides waits for them: the store's sealing lock, a vault's
// in agent/files, that of writing in agent/shares and in a dialect's store.
//
// The desk holds no lock when it has the verdict judged again (desk.Signals.FencePassed). Under its lock it tells
// others of ends of leases, changed demand and events: by a mark in a channel of capacity 1, or through a leaf.
package agent
