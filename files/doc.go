// Package files has the files that the program writes for somebody else, and the
// ones by which its processes keep out of each other's way.
package files
