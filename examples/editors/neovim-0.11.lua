-- peft-daemon in Neovim 0.11: ghost text while typing; <Tab> accepts it, <M-\> asks for it at once.
-- `gra` on a comment or a docstring offers to generate code from it. Neovim 0.12 needs less: see neovim-0.12.lua.

local ask_for_more ---@type fun(uri: string)

vim.lsp.config("peft_daemon", {
  cmd = { "peft-daemon", "lsp" },
  root_markers = { ".peft-daemon.toml", ".git" },
  capabilities = { textDocument = { inlineCompletion = { dynamicRegistration = false } } },
  settings = { ["peft-daemon"] = {} }, -- see docs/editors.md
  handlers = {
    ["peft-daemon/status"] = function(_, status)
      vim.g.peft_daemon = status.state -- for a status line: %{get(g:,'peft_daemon','')}
      vim.cmd.redrawstatus()
    end,
    ["peft-daemon/more"] = function(_, more) ask_for_more(more.uri) end,
  },
})
vim.lsp.enable("peft_daemon")

local PAUSE_MS = 150
local space = vim.api.nvim_create_namespace("peft_daemon")
local timer = assert(vim.uv.new_timer())
local asked ---@type { client: vim.lsp.Client, id: integer }?
local shown ---@type { item: table, client: vim.lsp.Client, tick: integer }?

local function dismiss()
  timer:stop()
  if asked then
    asked.client:cancel_request(asked.id)
  end
  asked, shown = nil, nil
  vim.api.nvim_buf_clear_namespace(0, space, 0, -1)
end

local function show(item, client)
  vim.api.nvim_buf_clear_namespace(0, space, 0, -1)
  local lines = vim.split(item.insertText, "\r?\n")
  local below = {}
  for index = 2, #lines do
    below[index - 1] = { { lines[index], "Comment" } }
  end
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  vim.api.nvim_buf_set_extmark(0, space, row - 1, column, {
    virt_text = { { lines[1], "Comment" } },
    virt_text_pos = "inline",
    virt_lines = below,
  })
  shown = { item = item, client = client, tick = vim.api.nvim_buf_get_changedtick(0) }
end

---@param kind 1|2 asked for, or while typing
local function ask(kind)
  local client = vim.lsp.get_clients({ bufnr = 0, name = "peft_daemon" })[1]
  if not client or vim.fn.mode() ~= "i" then
    return
  end
  local tick = vim.api.nvim_buf_get_changedtick(0)
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = kind }
  local sent, id = client:request("textDocument/inlineCompletion", params, function(_, result)
    local item = result and result.items and result.items[1]
    asked = nil
    if item and tick == vim.api.nvim_buf_get_changedtick(0) and vim.fn.mode() == "i" then
      show(item, client)
    end
  end, 0)
  asked = sent and id and { client = client, id = id } or nil
end

local function request(kind)
  dismiss()
  ask(kind)
end

-- The server has more of the ghost text, which stays until that is here.
ask_for_more = function(uri)
  if shown and shown.tick == vim.api.nvim_buf_get_changedtick(0) and uri == vim.uri_from_bufnr(0) then
    ask(2)
  end
end

local function accept()
  local accepted = shown
  if not accepted or accepted.tick ~= vim.api.nvim_buf_get_changedtick(0) then
    return vim.api.nvim_feedkeys(vim.keycode("<Tab>"), "in", false)
  end
  dismiss()
  local item, client = accepted.item, accepted.client
  local lines = vim.split(item.insertText, "\r?\n")
  local buffer = vim.api.nvim_get_current_buf()
  local row, column = unpack(vim.api.nvim_win_get_cursor(0))
  vim.lsp.util.apply_text_edits({ { range = item.range, newText = item.insertText } }, buffer, client.offset_encoding)
  vim.api.nvim_win_set_cursor(0, { row + #lines - 1, #lines == 1 and column + #lines[1] or #lines[#lines] })
  if item.command then
    client:exec_cmd(item.command, { bufnr = buffer })
  end
end

vim.keymap.set("i", "<Tab>", accept, { desc = "Accept peft-daemon's ghost text" })
vim.keymap.set("i", "<M-\\>", function() request(1) end, { desc = "Ask peft-daemon for ghost text" })
vim.api.nvim_create_autocmd("TextChangedI", {
  callback = function()
    dismiss()
    timer:start(PAUSE_MS, 0, vim.schedule_wrap(function() request(2) end))
  end,
})
vim.api.nvim_create_autocmd({ "InsertLeave", "BufLeave" }, { callback = dismiss })

-- Where the cursor rests (for 'updatetime') the model reads ahead.
vim.api.nvim_create_autocmd({ "LspAttach", "BufEnter", "CursorHold" }, {
  callback = function(event)
    local client = vim.lsp.get_clients({ bufnr = event.buf, name = "peft_daemon" })[1]
    if client and event.buf == vim.api.nvim_get_current_buf() then
      local here = vim.lsp.util.make_position_params(0, client.offset_encoding)
      client:notify("peft-daemon/cursor", { uri = here.textDocument.uri, position = here.position })
    end
  end,
})

vim.api.nvim_create_user_command("PeftDaemonWhy", function()
  local client = vim.lsp.get_clients({ bufnr = 0, name = "peft_daemon" })[1]
  local params = { command = "peft-daemon.why", arguments = { vim.uri_from_bufnr(0) } }
  assert(client, "peft-daemon is not attached here"):request("workspace/executeCommand", params, function(failed, answer)
    vim.notify(failed and failed.message or answer.text)
  end)
end, { desc = "Why there was ghost text, or none" })
