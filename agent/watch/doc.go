// Package watch follows the licence folder: which documents lie there, which of them are good, and what is wrong with
// the others.
//
// It promises that bytes that verify count at once, that a broken replacement never takes the last good bytes away, and
// that a file is never reported as removed while it is being replaced. It reads regular files of at most 1 MiB inside
// the folder and nothing else, whatever links, pipes and devices lie there, and quotes no content.
//
// Changes come from fsnotify on the directories (its events are only reasons to look: the folder is scanned, events are
// not believed) and from a poll that sees what fsnotify is deaf to. What a document means is not known here;
// Config.Check knows. Start reading at [Watcher.Run], then settle.go for the rule of patience and reader.go for what is
// read.
package watch
