package external

import "io/fs"

// safe checks nothing on Windows, where the mode does not hold the permissions.
func safe(string, fs.FileInfo) error { return nil }
