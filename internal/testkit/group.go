package testkit

import "syscall"

// ownGroup keeps a child away from the terminal's Ctrl-C.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
