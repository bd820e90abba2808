package files

import (
	"errors"

	"golang.org/x/sys/unix"
)

// ShortRoom is how many bytes of a file Short reads at the most.
const ShortRoom = 512

// Short reads the beginning of a file that the kernel makes as it is read (proc(5)), in one call and without garbage.
// What it returns is in room.
func Short(path string, room *[ShortRoom]byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.Read(fd, room[:])
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return nil, err
	}
	return room[:n], nil
}
