package journal_test

import (
	"encoding/binary"
	"hash/crc32"
)

// header follows the format's description, and does not use the code under test.
func header(version uint32, base uint64) []byte {
	b := []byte("USHERJ1\n")
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, base)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}
