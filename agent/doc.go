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
// No lock from 2 to 3 and none of 5 and 6 is held while a disk is synced, an upstream or a plugin is asked, or a send on
// a channel may block. What must be on the disk first is written under the desk's lock and waited for without it. The
// locks that are held over the disk serve nobody who decides: the store's sealing lock, a vault's in agent/files, and a
// dialect's store's.
//
// The desk asks for a verdict that is judged again (desk.Signals.FencePassed) without its lock. All else that it tells
// under its lock (the ends of leases, a changed demand, events) is a mark in a channel of capacity 1, or goes to a leaf.
package agent
