//go:build !linux

package check

import (
	"context"
	"errors"
	"time"
)

// disk is what only Linux has here.
type disk struct{ name, dir string }

var errNotHere = errors.New("only on Linux")

func canLimitFiles() bool  { return false }
func canLimitMemory() bool { return false }

func (s *system) mountDisks(context.Context) error            { return errNotHere }
func (s *system) unmountDisks()                               {}
func (s *system) fillDisk(context.Context, *fault) error      { return errNotHere }
func (s *system) exhaustFiles(context.Context, *fault) error  { return errNotHere }
func (s *system) exhaustMemory(context.Context, *fault) error { return errNotHere }

// ownTime is not known here.
func ownTime() time.Duration { return 0 }
