// Package usher is Usher's own licence format: a JSON Web Signature in compact form (RFC 7515) of type
// usher-license+jwt, optionally in PEM-like armour. docs/licence-format.md describes it claim by claim.
//
// The algorithm is the anchor's and never the document's; the header's kid picks the anchor. [Format] verifies
// documents and [Sign] makes them; [Claims] is their body. Package issue has keys and files on disk, package online the
// protocol of the upstream, and package registry its server.
package usher

// System is the system's name.
const System = "usher"

// Type is the header's typ of every document.
const Type = "usher-license+jwt"
