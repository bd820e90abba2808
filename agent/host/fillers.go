package host

import (
	"regexp"
	"slices"
	"strings"
)

// fillers are texts that makers write where a serial number or an id belongs. They stand in letters and digits alone,
// in lower case, as [plain] leaves a value.
var fillers = []string{
	"", "none", "na", "nan", "nil", "null", "no", "yes", "ok", "unknown", "unknow", "undefined", "unspecified",
	"unavailable", "unassigned", "unset", "unused", "invalid", "empty", "blank", "void", "missing", "error", "reserved",
	"default", "standard", "generic", "oem", "odm", "bios", "uuid", "guid", "mac", "eval", "test", "testing", "sample",
	"example", "demo", "dummy", "fake", "prototype", "placeholder", "string", "text", "value", "todo", "tbd", "tba",
	"tbc", "xx", "xxx", "serial", "serialno", "serialnum", "sn", "ssn", "noserial", "nosn", "nonumber", "noid",
	"nosmbios", "nodmi", "asset", "assettag", "noasset", "noassettag", "noassetinformation", "baseboard", "board",
	"motherboard", "mainboard", "mb", "chassis", "system", "product", "productname", "systemproductname",
	"systemname", "systemmodel", "systemmanufacturer", "manufacturer", "systemversion", "systemuuid", "systemsku",
	"systemserial", "boardserial", "baseboardserial", "mbserial", "chassisserial", "boardversion", "boardname",
	"baseboardproductname", "baseboardmanufacturer", "type1serial", "type2boardserial", "type3chassisserial",
	"asset1234567890", "mb1234567890", "sn1234567890", "0123456789abcdef", "1234567890abcdef", "123456789abcdef",
	"123456789abcd",
	"abcdefgh", "abcdef", "abc123", "abcd1234", "qwerty", "deadbeef", "uninitialized",
	// UUIDs that boards, their makers' examples and emulators share.
	"03000200040005000006000700080009", "00020003000400050006000700080009", "030201000504070608090a0b0c0d0e0f",
	"000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "12345678123456781234567812345678",
	"123456781234567890abcddeefaabbcc", "785634123412785690abcddeefaabbcc", "12345678123412341234123456789abc",
	"12345678123412341234123456789012", "11111111222233334444555555555555", "fefefefefefefefefefefefefefefefe",
	"a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5", "20202020202020202020202020202020", "4c4c454400002010802080c04f202020",
	"deadbeefdeadbeefdeadbeefdeadbeef",
}

// fillerParts are words that occur in no serial number: a maker's hint of what belongs there.
var fillerParts = []string{"tobefilled", "filledby", "fillby", "filledin", "tobedetermined", "tobedefined", "tobeset",
	"tobeassigned", "byoem", "byodm", "byvendor", "defaultstring", "morestring", "serialnumber", "serialno0000",
	"notspecified", "notavailable", "notapplicable", "notpresent", "notprovided", "notprogrammed", "notset",
	"notdefined",
	"notassigned", "notused", "notfilled", "notinstalled", "notsupported", "nodata", "nottobefilled", "unknown",
	"undefined", "unspecified", "placeholder", "insertserial", "yourserial", "oemstring", "oemdefault", "invalidserial"}

// emulated are the numbers that emulators and clouds give the disks of every machine, as they follow the maker's name.
var emulated = regexp.MustCompile(`(^|[^a-z0-9])(qm0{3,}\d+|` +
	`drive-(scsi|ide|sata|virtio|nvme)[\d-]*|persistent-disk-\d+|vmware[ _]nvme[ _]0*\d*|virtual[ _]disk)$`)

// plain returns the letters and digits of a value, in lower case.
func plain(v string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, normal(v))
}

// digits are the rows that people type who need any number.
const digits = "012345678901234567890123456789"

// isFiller reports whether a value identifies nothing: it is a maker's filler, one character only, however often, or
// the digits in their order.
func isFiller(v string) bool {
	p := plain(v)
	switch {
	case slices.Contains(fillers, p), emulated.MatchString(normal(v)):
		return true
	case len(p) < 2 || strings.Trim(p, p[:1]) == "":
		return true
	case len(p) > 3 && (strings.Contains(digits, p) || strings.Contains(reversed(digits), p)):
		return true
	case strings.HasPrefix(p, "0x") && strings.Trim(p[2:], "0") == "", strings.HasPrefix(p, "0x") &&
		strings.Trim(p[2:], "f") == "":
		return true
	case strings.Trim(p, "0") == "", strings.Trim(p, "x0") == "":
		return true
	}
	return slices.ContainsFunc(fillerParts, func(part string) bool { return strings.Contains(p, part) })
}

func reversed(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}
