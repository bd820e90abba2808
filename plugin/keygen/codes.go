package keygen

// Code is Keygen's code for the result of a validation.
type Code string

// The codes of validations: all that the server has.
const (
	CodeValid               Code = "VALID"
	CodeNotFound            Code = "NOT_FOUND"
	CodeBanned              Code = "BANNED"
	CodeSuspended           Code = "SUSPENDED"
	CodeExpired             Code = "EXPIRED"
	CodeOverdue             Code = "OVERDUE"
	CodeEnvironmentMismatch Code = "ENVIRONMENT_SCOPE_MISMATCH"
	CodeEnvironmentRequired Code = "ENVIRONMENT_SCOPE_REQUIRED"
	CodeProductMismatch     Code = "PRODUCT_SCOPE_MISMATCH"
	CodeProductRequired     Code = "PRODUCT_SCOPE_REQUIRED"
	CodePolicyMismatch      Code = "POLICY_SCOPE_MISMATCH"
	CodePolicyRequired      Code = "POLICY_SCOPE_REQUIRED"
	CodeUserMismatch        Code = "USER_SCOPE_MISMATCH"
	CodeUserRequired        Code = "USER_SCOPE_REQUIRED"
	CodeEntitlementsEmpty   Code = "ENTITLEMENTS_SCOPE_EMPTY"
	CodeEntitlementsMissing Code = "ENTITLEMENTS_MISSING"
	CodeNoMachine           Code = "NO_MACHINE"
	CodeNoMachines          Code = "NO_MACHINES"
	CodeMachineMismatch     Code = "MACHINE_SCOPE_MISMATCH"
	CodeMachineRequired     Code = "MACHINE_SCOPE_REQUIRED"
	CodeHeartbeatNotStarted Code = "HEARTBEAT_NOT_STARTED"
	CodeHeartbeatDead       Code = "HEARTBEAT_DEAD"
	CodeFingerprintEmpty    Code = "FINGERPRINT_SCOPE_EMPTY"
	CodeFingerprintRequired Code = "FINGERPRINT_SCOPE_REQUIRED"
	CodeFingerprintMismatch Code = "FINGERPRINT_SCOPE_MISMATCH"
	CodeComponentsEmpty     Code = "COMPONENTS_SCOPE_EMPTY"
	CodeComponentsRequired  Code = "COMPONENTS_SCOPE_REQUIRED"
	CodeComponentsMismatch  Code = "COMPONENTS_SCOPE_MISMATCH"
	CodeChecksumMismatch    Code = "CHECKSUM_SCOPE_MISMATCH"
	CodeChecksumRequired    Code = "CHECKSUM_SCOPE_REQUIRED"
	CodeVersionMismatch     Code = "VERSION_SCOPE_MISMATCH"
	CodeVersionRequired     Code = "VERSION_SCOPE_REQUIRED"
	CodeTooManyUsers        Code = "TOO_MANY_USERS"
	CodeTooManyMachines     Code = "TOO_MANY_MACHINES"
	CodeTooManyCores        Code = "TOO_MANY_CORES"
	CodeTooMuchMemory       Code = "TOO_MUCH_MEMORY"
	CodeTooMuchDisk         Code = "TOO_MUCH_DISK"
	CodeTooManyProcesses    Code = "TOO_MANY_PROCESSES"
)

// Codes returns every code, in the order in which the server checks, VALID last.
func Codes() []Code {
	return []Code{CodeNotFound, CodeBanned, CodeSuspended, CodeExpired, CodeOverdue, CodeEnvironmentMismatch,
		CodeEnvironmentRequired, CodeProductMismatch,
		CodeProductRequired, CodePolicyMismatch, CodePolicyRequired, CodeUserMismatch, CodeUserRequired,
		CodeEntitlementsEmpty, CodeEntitlementsMissing, CodeNoMachine, CodeNoMachines,
		CodeMachineMismatch, CodeMachineRequired, CodeHeartbeatNotStarted, CodeHeartbeatDead, CodeFingerprintEmpty,
		CodeFingerprintRequired, CodeFingerprintMismatch,
		CodeComponentsEmpty, CodeComponentsMismatch, CodeComponentsRequired, CodeChecksumMismatch, CodeChecksumRequired,
		CodeVersionMismatch, CodeVersionRequired,
		CodeTooManyUsers, CodeTooManyMachines, CodeTooManyCores, CodeTooMuchMemory, CodeTooMuchDisk,
		CodeTooManyProcesses, CodeValid}
}

// details are the sentences beside the codes.
var details = map[Code]string{
	CodeValid: "is valid", CodeNotFound: "does not exist", CodeBanned: "is banned", CodeSuspended: "is suspended",
	CodeExpired: "is expired", CodeOverdue: "is overdue for check in",
	CodeEnvironmentMismatch: "environment scope does not match",
	CodeEnvironmentRequired: "environment scope is required",
	CodeProductMismatch:     "product scope does not match", CodeProductRequired: "product scope is required",
	CodePolicyMismatch: "policy scope does not match", CodePolicyRequired: "policy scope is required",
	CodeUserMismatch: "user scope does not match", CodeUserRequired: "user scope is required",
	CodeEntitlementsEmpty:   "entitlements scope is empty",
	CodeEntitlementsMissing: "is missing one or more required entitlements",
	CodeNoMachine:           "machine is not activated (has no associated machine)",
	CodeNoMachines:          "machine is not activated (has no associated machines)",
	CodeMachineMismatch:     "machine is not activated (does not match any associated machines)",
	CodeMachineRequired:     "machine scope is required",
	CodeHeartbeatNotStarted: "machine heartbeat is required", CodeHeartbeatDead: "machine heartbeat is dead",
	CodeFingerprintEmpty: "fingerprint scope is empty", CodeFingerprintRequired: "fingerprint scope is required",
	CodeFingerprintMismatch: "fingerprint is not activated (does not match any associated machines)",
	CodeComponentsEmpty:     "components scope is empty", CodeComponentsRequired: "components scope is required",
	CodeComponentsMismatch: "components are not activated (does not match any associated components)",
	CodeChecksumMismatch:   "checksum scope is not valid (does not match any accessible artifacts)",
	CodeChecksumRequired:   "checksum scope is required",
	CodeVersionMismatch:    "version scope is not valid (does not match any accessible releases)",
	CodeVersionRequired:    "version scope is required",
	CodeTooManyUsers:       "has too many associated users", CodeTooManyMachines: "has too many associated machines",
	CodeTooManyCores:     "has too many associated machine cores",
	CodeTooMuchMemory:    "has too much associated machine memory",
	CodeTooMuchDisk:      "has too much associated machine disk",
	CodeTooManyProcesses: "has too many associated processes",
}

// Detail returns the usual sentence that goes with a code. [Explain] returns the one for a situation.
func (c Code) Detail() string { return details[c] }
