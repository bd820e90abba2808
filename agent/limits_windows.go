package agent

import "golang.org/x/sys/windows"

// connections returns 0, the API's own default: there is no limit to ask for.
func connections() int { return 0 }

// freeBytes returns how much room a folder's file system has for the agent; -1 when that is not known.
func freeBytes(dir string) float64 {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return -1
	}
	var free uint64
	if windows.GetDiskFreeSpaceEx(name, &free, nil, nil) != nil {
		return -1
	}
	return float64(free)
}
