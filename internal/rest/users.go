package rest

import (
	"im-services/internal/im"
	"im-services/internal/wire"
)

func getUser(c *call) (any, error) {
	n, err := c.id()
	if err != nil {
		return nil, err
	}
	id := im.UserID(n)
	if err := c.exists(id); err != nil {
		return nil, err
	}
	who, err := c.people([]im.UserID{id})
	if err != nil {
		return nil, err
	}
	return who.user(id), nil
}

func addressList(c *call) (any, error) {
	friends, err := c.friends()
	if err != nil {
		return nil, err
	}
	groups, err := c.groups()
	if err != nil {
		return nil, err
	}
	return wire.AddressBody{Friends: friends, Groups: groups}, nil
}
