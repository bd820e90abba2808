// Package watch follows the licence folder: which documents lie there, which of them are good, and what is wrong with
// the others.
//
// It promises that bytes that verify count at once, that a broken replacement never takes the last good bytes away, and
// that it never reports a file as removed during its replacement. It reads regular files of at most 1 MiB inside the
// folder and nothing else, whatever links, pipes and devices lie there, and quotes no content.
//
// Changes come from fsnotify on the directories, and from a poll that sees changes which fsnotify cannot see. Events
// are only reasons to scan the folder; the watcher does not believe them. The meaning of a document is Config.Check's
// business. Start reading at [Watcher.Run], then settle.go for the rule of patience and reader.go for the reading.
package watch
