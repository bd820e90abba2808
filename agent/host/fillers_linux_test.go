package host

import (
	"strings"
	"testing"
)

// What makers, emulators and clouds write where a number belongs is no component, however it is spelt.
func TestFillers(t *testing.T) {
	t.Parallel()
	for _, v := range []string{
		"To Be Filled By O.E.M.", "To be filled by O.E.M", "TO BE FILLED BY OEM", "To Be Filled In By O.E.M.",
		"To Be Filled By O.E.M. by More String", "Fill By OEM", "Filled by O.E.M.", "Default string", "Default String",
		"default_string", "Default string 1", "System Serial Number", "Base Board Serial Number",
		"BaseBoard Serial Number", "Chassis Serial Number", "SerialNumber", "Serial No.", "S/N", "N/A", "n.a.", "NA",
		"None", "NONE.", "(none)", "<none>", "[none]", "Null", "(null)", "nil", "Unknown", "UNKNOW", "Not Specified",
		"Not Applicable", "Not Available", "Not Present", "Not Provided", "Not Set", "Not Defined", "Not Assigned",
		"NotPresent", "No Asset Tag", "No Asset Information", "Asset-1234567890", "Asset Tag", "OEM", "O.E.M.",
		"OEM String", "Empty", "Blank", "Invalid", "INVALID SERIAL", "Undefined", "Unspecified", "TBD", "test",
		"Sample",
		"Type2 - Board Serial", "MB-1234567890", "SN1234567890", "0", "00000000", "0x00000000", "0xFFFFFFFF",
		"FFFFFFFF",
		"........", "--------", "........................", "XXXXXXXXXX", "xxx", "1", "11111111", "\x00\x00\x00", "  ",
		"0123456789", "123456789", "1234567890", "12345678", "0123456789ABCDEF", "1234567890abcdef", "9876543210",
		"ÿÿÿÿÿÿÿÿ", "??????", "uninitialized",
		"00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
		"03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009",
		"03020100-0504-0706-0809-0A0B0C0D0E0F", "12345678-1234-5678-90AB-CDDEEFAABBCC",
		"78563412-3412-7856-90AB-CDDEEFAABBCC", "12345678-1234-1234-1234-123456789abc",
		"11111111-2222-3333-4444-555555555555", "FEFEFEFE-FEFE-FEFE-FEFE-FEFEFEFEFEFE",
		"20202020-2020-2020-2020-202020202020", "00112233-4455-6677-8899-aabbccddeeff",
		"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff",
		"QM00001", "t10.ATA     QEMU HARDDISK                           QM00001             ",
		"0QEMU    QEMU HARDDISK   drive-scsi0-0-0-0", "persistent-disk-0", "VMware NVME_0000", "Msft Virtual Disk",
	} {
		if !isFiller(v) {
			t.Errorf("%q counts as a number", v)
		}
	}
}

// Numbers of real machines count, also those that look odd.
func TestNumbers(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"4C4C4544-0042-3510-8052-B4C04F4D4D32", "/7X2ABC3/CNFCP0098700AB/", "S4EVNX0R123456",
		"3c:ec:ef:12:34:56", "VMware-56 4d 3b 0c 6a 0e 54 ea-9d 31 2b 57 5e 4f 11 0a", "PF1ABCDE", "CZJ7450FGH",
		"0123456789abcdef0123456789abcdef", "ec2f3a1b-9d4e-11ee-b9d1-0242ac120002", "vol0a1b2c3d4e5f60718",
		"naa.600224800d4f3c2b1a09f8e7d6c5b4a3", "VB1a2b3c4d-5e6f7081", "210485573900012", "J1QX2B4", "WD-WCC4N1234567",
		"t10.ATA     QEMU HARDDISK                           MYSERIAL42", "20040000", "100023", "12345"[:3] + "70"} {
		if isFiller(v) {
			t.Errorf("%q counts as a filler", v)
		}
	}
}

// Hosts that nothing tells apart have no code in common: each has that of its agent's key, or none.
func TestUnidentifiedHosts(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"nothing at all": {},
		"fillers only": {"etc/machine-id": "uninitialized\n", "sys/class/dmi/id/board_serial": "Default string\n",
			"sys/class/dmi/id/product_uuid": "03000200-0400-0500-0006-000700080009\n"},
		"the make of the processor": {"proc/cpuinfo": metal["proc/cpuinfo"]},
	} {
		root := tree(t, map[string]string{"etc/x": ""}, files)
		measure := func(key string) Report {
			return Measure(t.Context(), Config{Product: "acme", Root: root, AgentKey: key,
				Extra: map[string]string{"cluster": "uid-1"}})
		}
		one, other, none := measure("key-1"), measure("key-2"), measure("")
		if one.Short() == other.Short() || one.Fingerprint == other.Fingerprint || one.Short() == "" {
			t.Errorf("%s: two hosts have the codes %q and %q", name, one.Short(), other.Short())
		}
		if again := measure("key-1"); again.Short() != one.Short() {
			t.Errorf("%s: the code changes: %q, %q", name, one.Short(), again.Short())
		}
		if none.Short() != "" || none.Fingerprint != "" {
			t.Errorf("%s: without a key the code is %q, the fingerprint %q", name, none.Short(), none.Fingerprint)
		}
	}
	r := Measure(t.Context(), Config{Product: "acme", Root: tree(t, metal), AgentKey: "key-1"})
	if o := Measure(t.Context(), Config{Product: "acme", Root: tree(t, metal)}); r.Short() != o.Short() ||
		strings.Contains(r.Fingerprint, "-") {
		t.Errorf("a host that has components is named by its key: %q, %q", r.Short(), o.Short())
	}
}
